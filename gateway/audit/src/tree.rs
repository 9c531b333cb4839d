// SPDX-License-Identifier: Apache-2.0
//! The Merkle tree of RFC 6962, section 2.1 (restated in RFC 9162, section 2.1): roots, the incremental frontier, and
//! proofs of inclusion and of consistency.

use aws_lc_rs::digest;

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The hash of a leaf: SHA-256 of a zero byte and the entry (RFC 6962, section 2.1).
pub fn leaf(entry: &[u8]) -> Hash {
    let mut bytes = Vec::with_capacity(entry.len() + 1);
    bytes.push(0);
    bytes.extend_from_slice(entry);
    sha256(&bytes)
}

/// The hash of an inner node: SHA-256 of a one byte, the left and the right hash (RFC 6962, section 2.1).
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    let (_, pair) = bytes.split_at_mut(1);
    let (l, r) = pair.split_at_mut(32);
    l.copy_from_slice(left);
    r.copy_from_slice(right);
    sha256(&bytes)
}

/// The right edge of a tree: the roots of its full subtrees, largest first. It is all that is needed to append.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The frontier of `size` leaves from its peaks; none when their number does not fit the size.
    pub fn new(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (u64::from(size.count_ones()) == peaks.len() as u64).then_some(Self { size, peaks })
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the full subtrees, largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut carry = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            if let Some(left) = self.peaks.pop() {
                carry = node(&left, &carry);
            }
            size >>= 1;
        }
        self.peaks.push(carry);
        self.size += 1;
    }

    /// The root of the tree; SHA-256 of nothing when it is empty.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return sha256(&[]) };
        peaks.fold(*last, |right, left| node(left, &right))
    }

    /// Becomes a copy of another, without a new allocation where the room suffices.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.size = other.size;
        self.peaks.clone_from(&other.peaks);
    }
}

/// The root over leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    let mut frontier = Frontier::default();
    for leaf in leaves {
        frontier.push(*leaf);
    }
    frontier.root()
}

/// The greatest power of two below `size`, which is at least 2.
fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

/// The audit path of the leaf at `index` (RFC 6962, section 2.1.1), nearest sibling first; none when there is no such
/// leaf. Takes time in proportion to the number of leaves.
pub fn inclusion(leaves: &[Hash], index: u64) -> Option<Vec<Hash>> {
    let mut index = usize::try_from(index).ok().filter(|i| *i < leaves.len())?;
    let (mut rest, mut path) = (leaves, Vec::new());
    while rest.len() > 1 {
        let (left, right) = rest.split_at_checked(split(rest.len()))?;
        if index < left.len() {
            path.push(root(right));
            rest = left;
        } else {
            path.push(root(left));
            index -= left.len();
            rest = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Whether an audit path leads from a leaf hash at `index` of `size` to a root (RFC 9162, section 2.1.3.2).
pub fn includes(index: u64, size: u64, leaf: Hash, path: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for step in path {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node(step, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// The proof that the first `old` leaves are a prefix of all (RFC 6962, section 2.1.2); none unless
/// 0 < `old` ≤ number of leaves. Takes time in proportion to the number of leaves.
pub fn consistency(leaves: &[Hash], old: u64) -> Option<Vec<Hash>> {
    let mut old = usize::try_from(old).ok().filter(|o| (1..=leaves.len()).contains(o))?;
    let (mut rest, mut whole, mut proof) = (leaves, true, Vec::new());
    while old != rest.len() {
        let (left, right) = rest.split_at_checked(split(rest.len()))?;
        if old <= left.len() {
            proof.push(root(right));
            rest = left;
        } else {
            proof.push(root(left));
            old -= left.len();
            rest = right;
            whole = false;
        }
    }
    if !whole {
        proof.push(root(rest));
    }
    proof.reverse();
    Some(proof)
}

/// Whether a proof leads from an old root to a new one (RFC 9162, section 2.1.4.2). An empty old tree is a prefix of
/// every tree and needs no proof.
pub fn extends(old_size: u64, old_root: &Hash, new_size: u64, new_root: &Hash, proof: &[Hash]) -> bool {
    if old_size == 0 {
        return proof.is_empty() && *old_root == sha256(&[]);
    }
    if old_size >= new_size {
        return old_size == new_size && proof.is_empty() && old_root == new_root;
    }
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let mut steps = proof.iter();
    let first = if old_size.is_power_of_two() { Some(old_root) } else { steps.next() };
    let Some(first) = first else { return false };
    let (mut from, mut to) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            from = node(step, &from);
            to = node(step, &to);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            to = node(&to, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && from == *old_root && to == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // the definition itself, word for word
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [one] => *one,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                node(&naive(&leaves[..k]), &naive(&leaves[k..]))
            }
        }
    }

    fn unhex(text: &str) -> Hash {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    // the entries and roots that implementations of RFC 6962 share as test vectors
    #[test]
    fn roots_are_those_of_the_known_vectors() {
        let entries: [&str; 8] =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root(), unhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
        for (entry, root) in entries.iter().zip(roots) {
            frontier.push(leaf(&hex::decode(entry).unwrap()));
            assert_eq!(frontier.root(), unhex(root), "after {entry:?}");
        }
        let leaves: Vec<Hash> = entries.iter().map(|e| leaf(&hex::decode(e).unwrap())).collect();
        // RFC 6962, section 2.1.3 in shape: the path of leaf 5 of 8 is its sibling, the pair before, the left half
        let path = inclusion(&leaves, 5).unwrap();
        assert_eq!(
            path,
            [
                leaves[4],
                node(&leaves[6], &leaves[7]),
                unhex("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7")
            ]
        );
    }

    fn some_leaves(n: usize) -> Vec<Hash> {
        (0..n as u64).map(|i| leaf(&i.to_le_bytes())).collect()
    }

    #[test]
    fn every_proof_of_small_trees_holds_and_no_altered_one_does() {
        for n in 1..40_usize {
            let leaves = some_leaves(n);
            let whole = root(&leaves);
            for i in 0..n {
                let path = inclusion(&leaves, i as u64).unwrap();
                assert!(includes(i as u64, n as u64, leaves[i], &path, &whole));
                assert!(!includes(i as u64, n as u64, leaf(b"other"), &path, &whole));
                assert!(!includes(n as u64, n as u64, leaves[i], &path, &whole));
                let mut long = path.clone();
                long.push(whole);
                assert!(!includes(i as u64, n as u64, leaves[i], &long, &whole));
                assert!(n == 1 || !includes(i as u64, n as u64, leaves[i], &path[1..], &whole));
            }
            for m in 1..=n {
                let old = root(&leaves[..m]);
                let proof = consistency(&leaves, m as u64).unwrap();
                assert!(extends(m as u64, &old, n as u64, &whole, &proof), "{m} {n}");
                assert!(!extends(m as u64, &leaf(b"fork"), n as u64, &whole, &proof));
                assert!(!extends(m as u64, &old, n as u64, &leaf(b"fork"), &proof));
                assert!(m == n || !extends(m as u64, &old, n as u64, &whole, &proof[1..]));
            }
            assert!(inclusion(&leaves, n as u64).is_none() && consistency(&leaves, n as u64 + 1).is_none());
        }
    }

    proptest! {
        #[test]
        fn the_frontier_agrees_with_the_definition(n in 0_usize..700) {
            let leaves = some_leaves(n);
            let mut frontier = Frontier::default();
            for l in &leaves { frontier.push(*l); }
            prop_assert_eq!(frontier.root(), naive(&leaves));
            prop_assert_eq!(Frontier::new(n as u64, frontier.peaks().to_vec()), Some(frontier));
        }

        #[test]
        fn proofs_hold_for_trees_of_any_shape(n in 1_usize..500, at in any::<prop::sample::Index>()) {
            let leaves = some_leaves(n);
            let i = at.index(n);
            let whole = naive(&leaves);
            let path = inclusion(&leaves, i as u64).unwrap();
            prop_assert!(includes(i as u64, n as u64, leaves[i], &path, &whole));
            let proof = consistency(&leaves, i as u64 + 1).unwrap();
            prop_assert!(extends(i as u64 + 1, &naive(&leaves[..=i]), n as u64, &whole, &proof));
        }
    }
}
