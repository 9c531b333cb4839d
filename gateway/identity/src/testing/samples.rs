// SPDX-License-Identifier: Apache-2.0
//! Whether two lots of samples can be told apart.

use std::time::{Duration, Instant};

/// The chance that two lots from one distribution lie as far apart as these: Kolmogorov and Smirnov's test for two
/// samples, by Stephens' approximation.
pub(crate) fn same(a: &[Duration], b: &[Duration]) -> f64 {
    let sorted = |all: &[Duration]| {
        let mut all = all.to_vec();
        all.sort_unstable();
        all
    };
    let (a, b) = (sorted(a), sorted(b));
    let share = |all: &[Duration], at: Duration| count(all.partition_point(|x| *x <= at)) / count(all.len());
    let apart = a.iter().chain(&b).map(|at| (share(&a, *at) - share(&b, *at)).abs()).fold(0.0, f64::max);
    let root = (count(a.len()) * count(b.len()) / count(a.len() + b.len())).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * apart;
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |j: u32| {
        let j = f64::from(j);
        (-2.0 * j * j * lambda * lambda).exp()
    };
    let sum: f64 = (1..=100).map(|j| if j % 2 == 1 { term(j) } else { -term(j) }).sum();
    (2.0 * sum).clamp(0.0, 1.0)
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap())
}

/// How long something takes. The full run reads the clock on the wall, as somebody far away does; elsewhere other work on
/// the machine would be all that it shows, and what this process worked is read.
pub(crate) struct Watch {
    wall: Instant,
    worked: Option<Duration>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let full = super::full_or(0, 1) == 1;
        Self { worked: if full { None } else { worked() }, wall: Instant::now() }
    }

    pub(crate) fn stop(self) -> Duration {
        match (self.worked, worked()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => self.wall.elapsed(),
        }
    }
}

/// What the threads of this process have worked so far.
fn worked() -> Option<Duration> {
    let mut sum = 0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        sum += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum))
}

/// How far the two of each pair lie apart at least, in the middle of them all: the nearer end of the interval that holds
/// the median of their differences (by the signs alone, so whatever their distribution is) but for one time in a thousand.
///
/// The distance of two medians would not do: a sample of 19 MiB of memory that was just given or was at hand differs by
/// several milliseconds, and of two lots of the same kind either may have more of the one.
pub(crate) fn apart_at_least(a: &[Duration], b: &[Duration]) -> Duration {
    let nanos = |d: &Duration| i128::try_from(d.as_nanos()).unwrap();
    let mut differences: Vec<i128> = a.iter().zip(b).map(|(a, b)| nanos(a) - nanos(b)).collect();
    differences.sort_unstable();
    let n = count(differences.len());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number that is not negative")]
    let beyond = (n / 2.0 - 3.29 * n.sqrt() / 2.0).max(0.0) as usize;
    let (low, high) = (differences[beyond], differences[differences.len() - 1 - beyond]);
    Duration::from_nanos(u64::try_from(low.max(-high).max(0)).unwrap())
}

/// Holds two lots of pairs that must look alike against both measures. One lot in a hundred looks different by accident:
/// three in a row do not.
pub(crate) async fn assert_alike(mut take: impl AsyncFnMut() -> [Vec<Duration>; 2]) {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let [a, b] = take().await;
        let (p, apart) = (same(&a, &b), apart_at_least(&a, &b));
        eprintln!("{} and {} samples: p = {p:.3}, at least {apart:?} apart", a.len(), b.len());
        if p > 0.01 && apart < Duration::from_millis(2) {
            return;
        }
        seen.push((p, apart));
    }
    panic!("they can be told apart: {seen:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Dice;

    /// Around 12 ms, as the sum of twelve even numbers: nearly normal, with a deviation of 0.1 ms.
    fn lot(dice: &mut Dice, shift_us: u64) -> Vec<Duration> {
        let one = |dice: &mut Dice| (0..12).map(|_| dice.roll(100_000)).sum::<u64>();
        (0..1_000).map(|_| Duration::from_nanos(11_400_000 + one(dice) + 1_000 * shift_us)).collect()
    }

    #[test]
    fn lots_of_one_kind_look_alike_and_shifted_ones_do_not() {
        let mut dice = Dice(7);
        let mut rejected = 0;
        for _ in 0..200 {
            rejected += u32::from(same(&lot(&mut dice, 0), &lot(&mut dice, 0)) <= 0.01);
        }
        assert!(rejected <= 8, "about one in a hundred: {rejected} of 200");
        for shift in [30, 100, 2_000] {
            let p = same(&lot(&mut dice, 0), &lot(&mut dice, shift));
            assert!(p < 0.001, "{shift} µs later: p = {p}");
        }
        let one = lot(&mut dice, 0);
        assert!((same(&one, &one) - 1.0).abs() < 1e-9);
        // Other shapes around the same middle are told apart as well.
        let wide: Vec<_> =
            lot(&mut dice, 0).iter().map(|d| (*d * 2).saturating_sub(Duration::from_millis(12))).collect();
        assert!(same(&one, &wide) < 0.001);
        assert!(apart_at_least(&one, &lot(&mut dice, 2_500)) > Duration::from_millis(2));
        assert!(apart_at_least(&lot(&mut dice, 2_500), &one) > Duration::from_millis(2));
        assert_eq!(apart_at_least(&one, &lot(&mut dice, 0)), Duration::ZERO);
    }

    #[tokio::test]
    #[should_panic(expected = "they can be told apart")]
    async fn what_takes_longer_each_time_is_told_apart() {
        let mut dice = Dice(11);
        assert_alike(async || [lot(&mut dice, 0), lot(&mut dice, 50)]).await;
    }

    /// As a hash is in a test: memory at hand or just given, 30 ms apart, and either as often.
    fn torn(dice: &mut Dice, shift_ms: u64) -> Vec<Duration> {
        let one = |dice: &mut Dice| 30 * dice.roll(2) + dice.roll(10) + shift_ms;
        (0..100).map(|_| Duration::from_millis(20 + one(dice))).collect()
    }

    #[tokio::test]
    async fn lots_that_fall_into_two_look_alike_as_well() {
        let mut dice = Dice(13);
        for _ in 0..100 {
            assert_alike(async || [torn(&mut dice, 0), torn(&mut dice, 0)]).await;
        }
    }

    /// What a name that is not hashed at all would save.
    #[tokio::test]
    #[should_panic(expected = "they can be told apart")]
    async fn what_saves_a_hash_is_told_apart_in_them() {
        let mut dice = Dice(17);
        assert_alike(async || [torn(&mut dice, 20), torn(&mut dice, 0)]).await;
    }

    /// Values that are worked out by hand: of 4 and 4 samples, the farthest apart is 1, then 0.5.
    #[test]
    fn the_distance_is_that_of_the_two_steps() {
        let ms = |all: [u64; 4]| all.map(Duration::from_millis);
        assert!(same(&ms([1, 2, 3, 4]), &ms([5, 6, 7, 8])) < 0.05);
        assert!(same(&ms([1, 2, 3, 4]), &ms([3, 4, 5, 6])) > 0.3);
    }
}
