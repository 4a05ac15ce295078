//! A persistent ordered map of bytes: a treap whose nodes are shared between versions.
//!
//! A clone of a [`Tree`] is one pointer and stays what it is; changing a tree copies the nodes on the way to the key as far
//! as another version still shares them. Priorities come from outside and must depend on the key alone: they fix the
//! shape, so that depth, and with it recursion, is logarithmic in the number of keys.

use std::cmp::Ordering;
use std::sync::Arc;

use anabranch_core::storage::Order;

/// An ordered map from bytes to bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    root: Link,
}

type Link = Option<Arc<Node>>;

#[derive(Debug, Clone)]
struct Node {
    key: Arc<[u8]>,
    value: Arc<[u8]>,
    priority: u64,
    left: Link,
    right: Link,
}

impl Tree {
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match key.cmp(&node.key) {
                Ordering::Less => &node.left,
                Ordering::Greater => &node.right,
                Ordering::Equal => return Some(&node.value),
            };
        }
        None
    }

    /// Returns the value that was there.
    pub(super) fn insert(&mut self, key: &[u8], value: &[u8], priority: u64) -> Option<Arc<[u8]>> {
        let node = Node { key: key.into(), value: value.into(), priority, left: None, right: None };
        insert(&mut self.root, node)
    }

    /// Returns the value that was there.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Arc<[u8]>> {
        // Looked up first, so that an absent key copies no node.
        self.get(key)?;
        remove(&mut self.root, key)
    }

    /// The pairs with `from <= key` and, if `to` is given, `key < to`.
    pub(super) fn range<'t>(
        &'t self,
        from: &'t [u8],
        to: Option<&'t [u8]>,
        order: Order,
    ) -> Range<'t> {
        let mut range = Range { from, to, order, ahead: Vec::new() };
        range.descend(&self.root);
        range
    }
}

impl Node {
    /// Whether it belongs above `other`. A strict order, so that the shape depends on the keys alone.
    fn outranks(&self, other: &Self) -> bool {
        (self.priority, &self.key) > (other.priority, &other.key)
    }
}

fn insert(link: &mut Link, mut new: Node) -> Option<Arc<[u8]>> {
    match link {
        // What has the new key has its rank too, so it cannot lie below a node that the new one outranks.
        Some(node) if !new.outranks(node) => {
            let node = Arc::make_mut(node);
            match new.key.cmp(&node.key) {
                Ordering::Less => insert(&mut node.left, new),
                Ordering::Greater => insert(&mut node.right, new),
                Ordering::Equal => Some(std::mem::replace(&mut node.value, new.value)),
            }
        }
        _ => {
            (new.left, new.right) = split(link.take(), &new.key);
            *link = Some(Arc::new(new));
            None
        }
    }
}

fn remove(link: &mut Link, key: &[u8]) -> Option<Arc<[u8]>> {
    let node = link.as_mut()?;
    match key.cmp(&node.key) {
        Ordering::Less => remove(&mut Arc::make_mut(node).left, key),
        Ordering::Greater => remove(&mut Arc::make_mut(node).right, key),
        Ordering::Equal => {
            let (value, left, right) = (node.value.clone(), node.left.clone(), node.right.clone());
            // Before the merge, so that the children are not taken for shared.
            *link = None;
            *link = merge(left, right);
            Some(value)
        }
    }
}

/// Parts a tree that does not hold `key` into what is below and what is above it.
fn split(link: Link, key: &[u8]) -> (Link, Link) {
    let Some(mut shared) = link else {
        return (None, None);
    };
    let node = Arc::make_mut(&mut shared);
    if *node.key < *key {
        let (below, above) = split(node.right.take(), key);
        node.right = below;
        (Some(shared), above)
    } else {
        let (below, above) = split(node.left.take(), key);
        node.left = above;
        (below, Some(shared))
    }
}

/// Joins two trees, every key of `low` being below every key of `high`.
fn merge(low: Link, high: Link) -> Link {
    match (low, high) {
        (Some(mut low), Some(mut high)) => {
            if low.outranks(&high) {
                let node = Arc::make_mut(&mut low);
                node.right = merge(node.right.take(), Some(high));
                Some(low)
            } else {
                let node = Arc::make_mut(&mut high);
                node.left = merge(Some(low), node.left.take());
                Some(high)
            }
        }
        (low, high) => low.or(high),
    }
}

/// A walk over a part of a tree.
pub(super) struct Range<'t> {
    from: &'t [u8],
    to: Option<&'t [u8]>,
    order: Order,
    /// Nodes inside the near bound whose turn is still to come, the next one last.
    ahead: Vec<&'t Node>,
}

impl<'t> Range<'t> {
    /// Pushes the way to the first node of the subtree that is inside the near bound.
    fn descend(&mut self, mut link: &'t Link) {
        while let Some(node) = link {
            let (inside, near, far) = match self.order {
                Order::Ascending => (self.after_start(node), &node.left, &node.right),
                Order::Descending => (self.before_end(node), &node.right, &node.left),
            };
            if inside {
                self.ahead.push(node);
                link = near;
            } else {
                link = far;
            }
        }
    }

    fn after_start(&self, node: &Node) -> bool {
        *node.key >= *self.from
    }

    fn before_end(&self, node: &Node) -> bool {
        self.to.is_none_or(|to| *node.key < *to)
    }
}

impl<'t> Iterator for Range<'t> {
    type Item = (&'t [u8], &'t [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.ahead.pop()?;
        let (inside, rest) = match self.order {
            Order::Ascending => (self.before_end(node), &node.right),
            Order::Descending => (self.after_start(node), &node.left),
        };
        if !inside {
            self.ahead.clear();
            return None;
        }
        self.descend(rest);
        Some((&node.key, &node.value))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    fn filled(hasher: &RandomState, numbers: impl Iterator<Item = u32>) -> Tree {
        let mut tree = Tree::default();
        for n in numbers {
            let key = n.to_be_bytes();
            assert!(tree.insert(&key, b"v", hasher.hash_one(key)).is_none());
        }
        tree
    }

    fn depth(link: &Link) -> usize {
        link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    fn numbers(tree: &Tree) -> Vec<u32> {
        tree.range(b"", None, Order::Ascending)
            .map(|(key, _)| u32::from_be_bytes(key.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn stays_shallow_whatever_the_order_of_insertion() {
        let hasher = RandomState::new();
        for tree in [filled(&hasher, 0..50_000), filled(&hasher, (0..50_000).rev())] {
            // The expected depth is below 40; the chance of 100 is negligible.
            assert!(depth(&tree.root) < 100);
        }
    }

    #[test]
    fn a_version_stays_what_it_is_while_its_successor_changes() {
        let hasher = RandomState::new();
        let old = filled(&hasher, 0..1000);
        let mut new = old.clone();
        for n in (0..1000_u32).step_by(2) {
            assert!(new.remove(&n.to_be_bytes()).is_some());
        }
        for n in 1000..1500_u32 {
            let key = n.to_be_bytes();
            new.insert(&key, b"v", hasher.hash_one(key));
        }
        assert_eq!(numbers(&old), (0..1000).collect::<Vec<_>>());
        assert_eq!(numbers(&new), (1..1000).step_by(2).chain(1000..1500).collect::<Vec<_>>());
    }

    #[test]
    fn equal_priorities_lose_no_key() {
        let mut tree = Tree::default();
        for n in [3, 1, 2, 0, 4, 2, 3] {
            tree.insert(&u32::to_be_bytes(n), b"v", 9);
        }
        assert_eq!(numbers(&tree), [0, 1, 2, 3, 4]);
        assert!(tree.remove(&2_u32.to_be_bytes()).is_some());
        assert!(tree.remove(&2_u32.to_be_bytes()).is_none());
        assert_eq!(numbers(&tree), [0, 1, 3, 4]);
    }
}
