//! Files that may be rewritten at any time, by others and in several steps.

use crate::pem_file::Fingerprint;

/// What is known of a set of files.
pub(super) struct Watched {
    taken: Fingerprint,
    suspect: Option<Fingerprint>,
}

/// What a look at the files brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News<T, E> {
    /// They hold what is in effect.
    Same,
    /// They hold something else that is good.
    Good(T),
    /// What they hold cannot be used; they may be in the middle of a change.
    Unsettled,
    /// What they hold cannot be used, and has not changed since the last look.
    Bad(E),
}

impl Watched {
    /// Files whose content is in effect.
    pub(super) fn new(taken: Fingerprint) -> Self {
        Self {
            taken,
            suspect: None,
        }
    }

    /// The content in effect.
    pub(super) fn taken(&self) -> Fingerprint {
        self.taken
    }

    /// Another content is in effect now.
    pub(super) fn take(&mut self, taken: Fingerprint) {
        *self = Self::new(taken);
    }

    /// Judges what was found; `parsed` is `None` when that is what is in effect.
    pub(super) fn judge<T, E>(
        &mut self,
        found: Fingerprint,
        parsed: Option<Result<T, E>>,
    ) -> News<T, E> {
        match parsed {
            None => {
                self.suspect = None;
                News::Same
            }
            Some(Ok(good)) => {
                self.take(found);
                News::Good(good)
            }
            Some(Err(reason)) if self.suspect == Some(found) => News::Bad(reason),
            Some(Err(_)) => {
                self.suspect = Some(found);
                News::Unsettled
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pem_file::PemFile;

    fn content(text: &str) -> Fingerprint {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Fingerprint::of([&PemFile::read(file.path())])
    }

    #[test]
    fn what_is_bad_is_told_once_it_has_settled() {
        let (old, half, new) = (content("old"), content("half"), content("new"));
        let mut watched = Watched::new(old);
        let bad = || Some(Err::<&str, _>("bad"));
        assert_eq!(watched.judge(old, None::<Result<(), ()>>), News::Same);
        assert_eq!(watched.judge(half, bad()), News::Unsettled);
        assert_eq!(watched.judge(half, bad()), News::Bad("bad"));
        assert_eq!(watched.judge(content("other"), bad()), News::Unsettled);
        let good = Some(Ok::<_, ()>("good"));
        assert_eq!(watched.judge(new, good), News::Good("good"));
        assert_eq!(watched.taken(), new);
        assert_eq!(watched.judge(half, bad()), News::Unsettled);
    }
}
