//! The steps of one device that wait, in the order in which they are wished.

/// How many waiting steps of a device are looked at: a small load may go before a big one that does not fit yet.
const LOOK: usize = 24;

/// Waiting steps, best first. What is taken out leaves a mark, so that nothing is moved.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Vec<Option<usize>>,
    first: usize,
    left: usize,
}

impl Queue {
    pub fn new(steps: Vec<usize>) -> Self {
        Self { left: steps.len(), waiting: steps.into_iter().map(Some).collect(), first: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Everything that waits.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.waiting[self.first..].iter().flatten().copied()
    }

    /// Takes out the first that passes. What waits for others (`None`) costs nothing; of those that find no room only the
    /// next few are asked.
    pub fn take(&mut self, mut passes: impl FnMut(usize) -> Option<bool>) -> Option<usize> {
        let mut looked = 0;
        for at in self.first..self.waiting.len() {
            let Some(step) = self.waiting[at] else { continue };
            let passed = passes(step);
            if passed == Some(true) {
                self.waiting[at] = None;
                self.left -= 1;
                while self.waiting.get(self.first) == Some(&None) {
                    self.first += 1;
                }
                return Some(step);
            }
            looked += usize::from(passed.is_some());
            if looked == LOOK {
                return None;
            }
        }
        None
    }
}
