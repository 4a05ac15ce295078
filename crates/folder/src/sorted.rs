//! Reading an input one path ahead, and refusing one that is out of order.

use crate::path::RelPath;

/// Why an input that comes path by path cannot be read on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError<E> {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] E),
    /// It does not come in the order of its paths. Going on would take the paths passed over for deleted.
    #[error("paths come out of order at {0}")]
    Unsorted(RelPath),
}

/// An iterator over paths with something to each, known to be sorted as far as it was read.
pub(crate) struct Sorted<I, T> {
    inner: I,
    ahead: Option<(RelPath, T)>,
    last: Option<RelPath>,
}

impl<E, T, I: Iterator<Item = Result<(RelPath, T), E>>> Sorted<I, T> {
    pub(crate) fn new(inner: I) -> Self {
        Self { inner, ahead: None, last: None }
    }

    /// The path that comes next.
    pub(crate) fn peek(&mut self) -> Result<Option<&RelPath>, InputError<E>> {
        if self.ahead.is_none()
            && let Some(item) = self.inner.next()
        {
            let (path, what) = item?;
            if self.last.as_ref().is_some_and(|last| *last >= path) {
                return Err(InputError::Unsorted(path));
            }
            self.last = Some(path.clone());
            self.ahead = Some((path, what));
        }
        Ok(self.ahead.as_ref().map(|(path, _)| path))
    }

    /// What comes next, if it is for `path`.
    pub(crate) fn take(&mut self, path: &RelPath) -> Result<Option<T>, InputError<E>> {
        if self.peek()? != Some(path) {
            return Ok(None);
        }
        Ok(self.ahead.take().map(|(_, what)| what))
    }
}

/// The smaller of two paths that may be missing.
pub(crate) fn first<'a>(a: Option<&'a RelPath>, b: Option<&'a RelPath>) -> Option<&'a RelPath> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn disorder_and_repetition_are_refused() {
        for second in ["a", "b"] {
            let items = [("b", 1), (second, 2)].map(|(p, n)| Ok::<_, ()>((path(p), n)));
            let mut sorted = Sorted::new(items.into_iter());
            assert_eq!(sorted.take(&path("b")).unwrap(), Some(1));
            assert!(matches!(sorted.peek(), Err(InputError::Unsorted(p)) if p == path(second)));
        }
    }

    #[test]
    fn a_failing_input_is_passed_on() {
        let mut sorted = Sorted::<_, ()>::new([Err("disk")].into_iter());
        assert!(matches!(sorted.peek(), Err(InputError::Failed("disk"))));
    }
}
