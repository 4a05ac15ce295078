//! A bounded set of things that are lent to one user at a time: read connections, and the one writer.
//!
//! Waiting has an end, so that a user who holds two at once gets an error and not a thread that hangs for ever.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// At most `capacity` values of `T`, made when first needed.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    shelf: Mutex<Shelf<T>>,
    returned: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct Shelf<T> {
    idle: Vec<T>,
    /// How many exist, lent ones included.
    made: usize,
    /// Who waits, in the order in which they came: whoever gives back and comes again at once does not go before them.
    waiting: VecDeque<u64>,
    /// Told apart by this.
    next: u64,
}

impl<T> Pool<T> {
    /// An empty pool that will make up to `capacity` values, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            shelf: Mutex::new(Shelf {
                idle: Vec::new(),
                made: 0,
                waiting: VecDeque::new(),
                next: 0,
            }),
            returned: Condvar::new(),
            capacity: capacity.max(1),
        }
    }

    /// A pool of exactly this value, remade after it was discarded.
    pub(crate) fn of_one(value: T) -> Self {
        let pool = Self::new(1);
        {
            let mut shelf = pool.shelf();
            shelf.idle.push(value);
            shelf.made = 1;
        }
        pool
    }

    /// Borrows an idle value or makes one; waits up to `patience` when all are lent, and for those who waited before. Nothing
    /// when that was in vain.
    pub(crate) fn lend<E>(
        &self,
        patience: Duration,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Option<Lease<'_, T>>, E> {
        let deadline = Instant::now().checked_add(patience);
        let mut shelf = self.shelf();
        let mut place = None;
        loop {
            let first = shelf.waiting.front().copied() == place;
            if first && (!shelf.idle.is_empty() || shelf.made < self.capacity) {
                shelf.waiting.pop_front();
                self.wake(&shelf);
                if let Some(value) = shelf.idle.pop() {
                    return Ok(Some(self.lease(value)));
                }
                shelf.made += 1;
                drop(shelf);
                return self.fill_place(make).map(Some);
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                shelf.waiting.retain(|waiting| Some(*waiting) != place);
                self.wake(&shelf);
                return Ok(None);
            }
            if place.is_none() {
                place = Some(shelf.next);
                let next = shelf.next;
                shelf.waiting.push_back(next);
                shelf.next += 1;
            }
            shelf = self.wait(shelf, left);
        }
    }

    /// Borrows a value only if one is idle and nobody waits for it.
    pub(crate) fn lend_idle(&self) -> Option<Lease<'_, T>> {
        let mut shelf = self.shelf();
        let value = if shelf.waiting.is_empty() { shelf.idle.pop() } else { None }?;
        Some(self.lease(value))
    }

    /// Takes out everything idle, for closing.
    pub(crate) fn drain(&self) -> Vec<T> {
        let mut shelf = self.shelf();
        shelf.made -= shelf.idle.len();
        std::mem::take(&mut shelf.idle)
    }

    fn fill_place<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<Lease<'_, T>, E> {
        make().map(|value| self.lease(value)).inspect_err(|_| self.give_up_place())
    }

    fn give_up_place(&self) {
        let mut shelf = self.shelf();
        shelf.made -= 1;
        self.wake(&shelf);
    }

    /// Only the first of those who wait can go on, and which thread is woken is not ours to say.
    fn wake(&self, shelf: &Shelf<T>) {
        if !shelf.waiting.is_empty() {
            self.returned.notify_all();
        }
    }

    fn lease(&self, value: T) -> Lease<'_, T> {
        Lease { pool: self, value: Some(value), condemned: false }
    }

    fn wait<'s>(
        &self,
        shelf: MutexGuard<'s, Shelf<T>>,
        left: Option<Duration>,
    ) -> MutexGuard<'s, Shelf<T>> {
        match left {
            Some(left) => {
                self.returned.wait_timeout(shelf, left).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.returned.wait(shelf).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The shelf is never left half changed, so a panic elsewhere while it was locked does not matter.
    fn shelf(&self) -> MutexGuard<'_, Shelf<T>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lent value; dropping it gives it back, or makes room for a new one after [`Lease::condemn`].
#[derive(Debug)]
pub(crate) struct Lease<'p, T> {
    pool: &'p Pool<T>,
    /// There until the lease is dropped.
    value: Option<T>,
    condemned: bool,
}

impl<T> Lease<'_, T> {
    /// The value is not to be lent again.
    pub(crate) fn condemn(&mut self) {
        self.condemned = true;
    }
}

impl<T> Deref for Lease<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a lease has its value until it is dropped")
    }
}

impl<T> DerefMut for Lease<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("a lease has its value until it is dropped")
    }
}

impl<T> Drop for Lease<'_, T> {
    fn drop(&mut self) {
        if self.condemned {
            drop(self.value.take());
            self.pool.give_up_place();
        } else if let Some(value) = self.value.take() {
            let mut shelf = self.pool.shelf();
            shelf.idle.push(value);
            self.pool.wake(&shelf);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn lend(pool: &Pool<u32>, patience: Duration) -> Option<Lease<'_, u32>> {
        pool.lend(patience, || Ok::<_, Infallible>(7)).unwrap()
    }

    #[test]
    fn lends_no_more_than_its_capacity() {
        let pool = Pool::new(2);
        let first = lend(&pool, SHORT).unwrap();
        let _second = lend(&pool, SHORT).unwrap();
        assert!(lend(&pool, SHORT).is_none());
        drop(first);
        assert!(lend(&pool, SHORT).is_some());
    }

    #[test]
    fn a_waiting_user_gets_what_is_given_back() {
        let pool = Pool::of_one(1);
        let held = lend(&pool, SHORT).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lend(&pool, Duration::from_secs(30)).map(|lease| *lease));
            std::thread::sleep(SHORT);
            drop(held);
            assert_eq!(waiting.join().unwrap(), Some(1));
        });
    }

    #[test]
    fn who_comes_again_at_once_does_not_go_before_who_waits() {
        let pool = Pool::of_one(1);
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let held = lend(&pool, SHORT).unwrap();
            scope.spawn(|| {
                let _lent = lend(&pool, Duration::from_secs(30)).unwrap();
                order.lock().unwrap().push("who waited");
            });
            while pool.shelf().waiting.is_empty() {
                std::thread::yield_now();
            }
            drop(held);
            let _again = lend(&pool, Duration::from_secs(30)).unwrap();
            order.lock().unwrap().push("who came again");
        });
        assert_eq!(order.into_inner().unwrap(), ["who waited", "who came again"]);
    }

    #[test]
    fn who_does_not_wait_does_not_go_before_who_does() {
        let pool = Pool::of_one(1);
        let held = lend(&pool, SHORT).unwrap();
        pool.shelf().waiting.push_back(7);
        drop(held);
        assert!(pool.lend_idle().is_none());
        pool.shelf().waiting.clear();
        assert!(pool.lend_idle().is_some());
    }

    #[test]
    fn who_gave_up_waiting_keeps_nobody() {
        let pool = Pool::of_one(1);
        let held = lend(&pool, SHORT).unwrap();
        assert!(lend(&pool, SHORT).is_none());
        drop(held);
        assert!(pool.lend_idle().is_some());
    }

    #[test]
    fn failing_to_make_one_leaves_the_place_free() {
        let pool: Pool<u32> = Pool::new(1);
        assert_eq!(pool.lend(SHORT, || Err("no")).unwrap_err(), "no");
        assert!(lend(&pool, SHORT).is_some());
    }

    #[test]
    fn a_condemned_value_is_made_anew() {
        let pool = Pool::of_one(1);
        lend(&pool, SHORT).unwrap().condemn();
        assert!(pool.lend_idle().is_none());
        assert_eq!(*lend(&pool, SHORT).unwrap(), 7);
    }

    #[test]
    fn a_panicking_user_gives_back() {
        let pool = Pool::of_one(1);
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _held = lend(&pool, SHORT);
                panic!("on purpose");
            });
            assert!(panics.join().is_err());
        });
        assert!(pool.lend_idle().is_some());
    }
}
