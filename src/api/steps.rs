//! One number a step over any stretch of time: the steps are made slice by slice, so that ten million of them take no
//! more memory than one slice. The slices joined are what one set of steps over the whole would be.

use crate::model::time::Stamp;
use crate::series::rollup::Rolled;
use crate::series::window::{Bucket, Buckets, Run, Sample};

use super::select::Window;
use super::stream::Stopped;

/// What steps are shown to, oldest first.
pub type Show<'s> = &'s mut dyn FnMut(Bucket) -> Result<(), Stopped>;

/// Steps of one series.
pub struct Steps {
    window: Window,
    /// Milliseconds of a slice.
    slice_ms: i64,
    buckets: Buckets,
    /// The slice under way.
    from: Stamp,
    until: Stamp,
    /// Steps before `from` that the buckets were begun with, and that are shown already.
    shown: usize,
    /// The last good reading: a rate goes on from it.
    last: Option<Last>,
    /// Where the one before that ended, and what it was.
    before: Option<(Stamp, i64)>,
}

#[derive(Debug, Clone, Copy)]
enum Last {
    Sample(Sample),
    Rolled(Rolled, i64),
}

impl Last {
    /// Until when it goes, and the reading that it ends with.
    fn end(self) -> Option<(Stamp, i64)> {
        match self {
            Last::Sample((at, value)) => Some((at, value.ok()?)),
            Last::Rolled(rolled, width) => {
                Some((Stamp(rolled.at.saturating_add(width)), rolled.last))
            }
        }
    }
}

impl Steps {
    /// Over a window, so many steps a slice.
    pub fn new(window: Window, slice: usize) -> Self {
        let slice = i64::try_from(slice.max(1)).unwrap_or(i64::MAX);
        let slice_ms = slice.saturating_mul(window.step_ms());
        let until = Stamp(window.start.0.saturating_add(slice_ms)).min(window.end);
        let buckets = Buckets::new(window.start, until, window.step, window.how);
        Self {
            window,
            slice_ms,
            buckets,
            from: window.start,
            until,
            shown: 0,
            last: None,
            before: None,
        }
    }

    /// Whether the last slice was shown.
    pub fn is_over(&self) -> bool {
        self.from >= self.window.end
    }

    /// The slice under way.
    pub fn slice(&self) -> (Stamp, Stamp) {
        (self.from, self.until)
    }

    /// The next of what a scan shows, oldest first; slices that are over by then are shown.
    pub fn take(&mut self, mut run: Run<'_>, show: Show<'_>) -> Result<(), Stopped> {
        while let Some(at) = run.first() {
            while at >= self.until && !self.is_over() {
                self.turn(show)?;
            }
            if self.is_over() {
                return Ok(());
            }
            let (mine, rest) = run.split_at(self.until);
            self.buckets.take_run(mine);
            self.remember(mine);
            run = rest;
        }
        Ok(())
    }

    /// Remembers the last good readings of some.
    fn remember(&mut self, run: Run<'_>) {
        match run {
            Run::Numbers(times, numbers) => {
                if let (Some(at), Some(number)) = (times.last(), numbers.last()) {
                    self.last = Some(Last::Sample((Stamp(*at), Ok(*number))));
                }
            }
            Run::Gaps(..) => {}
            Run::Rolled(steps, width) => {
                let mut good = steps.iter().rev().filter(|step| step.count > 0);
                let Some(last) = good.next().map(|step| self.last_of(step, width)) else { return };
                let before = good.next().map(|step| self.last_of(step, width));
                self.before = before.or(self.last).and_then(Last::end);
                self.last = Some(last);
            }
        }
    }

    fn last_of(&self, step: &Rolled, width: i64) -> Last {
        // From before the window only its end counts, as it does for the buckets, unless it stands for steps of it.
        let end = Stamp(step.at.saturating_add(width));
        let stands = width > self.window.step_ms() && end > self.window.start;
        if Stamp(step.at) < self.window.start && !stands {
            Last::Sample((end.min(self.window.start), Ok(step.last)))
        } else {
            Last::Rolled(*step, width)
        }
    }

    /// Shows what is left.
    pub fn finish(mut self, show: Show<'_>) -> Result<(), Stopped> {
        while !self.is_over() {
            self.turn(show)?;
        }
        Ok(())
    }

    /// Shows the slice under way and begins the next.
    pub fn turn(&mut self, show: Show<'_>) -> Result<(), Stopped> {
        let from = self.until;
        let until = Stamp(from.0.saturating_add(self.slice_ms)).min(self.window.end);
        let begin = self.begin(from);
        let mut next = Buckets::new(begin, until, self.window.step, self.window.how);
        match self.last {
            Some(Last::Sample(sample)) => next.take(sample),
            Some(Last::Rolled(rolled, width)) => {
                self.before.into_iter().for_each(|before| next.goes_on_from(before));
                next.take_rolled(&rolled, width);
            }
            None => {}
        }
        let shown = (from.0 - begin.0) / self.window.step_ms();
        let done = std::mem::replace(&mut self.buckets, next).finish();
        let already = std::mem::replace(&mut self.shown, shown as usize);
        (self.from, self.until) = (from, until);
        done.into_iter().skip(already).try_for_each(show)
    }

    /// Where the next buckets begin so that they know the last reading as the ones before did. A rollup that reaches
    /// over the edge is taken by both, so they begin with its step.
    fn begin(&self, from: Stamp) -> Stamp {
        let Some(Last::Rolled(rolled, width)) = self.last else { return from };
        if rolled.at.saturating_add(width) <= from.0 {
            return from;
        }
        let start = self.window.start.0;
        let step = self.window.step_ms();
        Stamp(start + (rolled.at - start).div_euclid(step) * step).min(from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::reading::Gap;
    use crate::model::time::Span;
    use crate::series::cells::{Column, Piece};
    use crate::series::rollup::roll;
    use crate::series::window::Aggregate;

    fn sliced(window: Window, slice: usize, runs: &[Run<'_>]) -> Vec<Bucket> {
        let mut out = Vec::new();
        let mut show = |bucket| {
            out.push(bucket);
            Ok(())
        };
        let mut steps = Steps::new(window, slice);
        runs.iter().for_each(|run| steps.take(*run, &mut show).unwrap());
        steps.finish(&mut show).unwrap();
        out
    }

    fn whole(window: Window, runs: &[Run<'_>]) -> Vec<Bucket> {
        let mut buckets = Buckets::new(window.start, window.end, window.step, window.how);
        for run in runs {
            match run {
                Run::Rolled(steps, width) => {
                    steps.iter().for_each(|step| buckets.take_rolled(step, *width));
                }
                run => run.samples().for_each(|sample| buckets.take(sample)),
            }
        }
        buckets.finish()
    }

    proptest! {
        #[test]
        fn slices_joined_are_the_whole(
            readings in prop::collection::btree_map(0_i64..400, prop::option::weighted(0.9, 0_i64..100), 0..80),
            (start, length, step) in (0_i64..100, 1_i64..300, 1_u64..40),
            (slice, how) in (1_usize..12, 0_usize..5),
            mix in 0_i64..400,
        ) {
            let how = Aggregate::ALL[how].1;
            let window = Window { start: Stamp(start), end: Stamp(start + length), step: Span(step), how };
            let column: Vec<(i64, Result<i64, Gap>)> =
                readings.into_iter().map(|(at, value)| (at, value.ok_or(Gap::Timeout))).collect();
            // What is older than some moment is there as rollups only, as in the store.
            let (old, new): (Vec<_>, Vec<_>) = column.into_iter().partition(|(at, _)| *at / 20 < mix / 20);
            let rolled = roll(old.iter().copied(), 20);
            let (times, cells): (Vec<i64>, Vec<_>) = new.into_iter().unzip();
            let cells: Column = cells.into_iter().collect();
            let mut runs = vec![Run::Rolled(&rolled, 20)];
            let mut at = 0;
            for piece in cells.pieces() {
                let times = &times[at..at + piece.len()];
                at += piece.len();
                runs.push(match piece {
                    Piece::Numbers(numbers) => Run::Numbers(times, numbers),
                    Piece::Gaps(_, gap) => Run::Gaps(times, gap),
                });
            }
            prop_assert_eq!(sliced(window, slice, &runs), whole(window, &runs));
        }
    }
}
