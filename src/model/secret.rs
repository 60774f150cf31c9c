//! Communities, passphrases, keys: never printed, wiped when dropped.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text. `Debug` shows nothing of it, not even its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the one place that puts it on the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_secret_does_not_print() {
        assert!(!format!("{:?}", super::Secret::new("hunter22".into())).contains("hunter"));
    }
}
