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
    worked_but_by("")
}

/// The same without this thread.
fn worked_elsewhere() -> Option<Duration> {
    worked_but_by(std::fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?)
}

fn worked_but_by(left_out: &str) -> Option<Duration> {
    // What a thread worked is counted when it stops: without that, what this one did last would be missing.
    std::thread::sleep(Duration::from_nanos(1));
    let mut sum = 0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let thread = thread.ok()?;
        if thread.file_name() != *left_out {
            sum += worked_by(&thread.path())?;
        }
    }
    Some(Duration::from_nanos(sum))
}

fn worked_by(thread: &std::path::Path) -> Option<u64> {
    let text = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    text.split(' ').next()?.parse::<u64>().ok()
}

/// Waits until no other thread of this process works any more: what one sample left to be done would be counted with the
/// next, which is of the other lot more often than not.
pub(crate) async fn settle() {
    let mut before = worked_elsewhere();
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = worked_elsewhere();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Two lots that were taken in pairs, the one beside the other: whatever else the machine did meanwhile, it did to both.
#[derive(Debug)]
struct Pairs {
    /// The chance that they are of one distribution.
    same: f64,
    /// The chance that the one is as often above the other as below: of the signs of the differences alone, so that a few
    /// large ones say no more than small ones.
    even: f64,
    /// How far the one lies from the other: the median of the differences.
    apart: Duration,
}

impl Pairs {
    fn of(a: &[Duration], b: &[Duration]) -> Self {
        let mut all: Vec<(Duration, bool)> = a.iter().zip(b).map(|(a, b)| (a.abs_diff(*b), a > b)).collect();
        let above = all.iter().filter(|(_, is_above)| *is_above).count();
        let ties = all.iter().filter(|(apart, _)| apart.is_zero()).count();
        let below = all.len() - above - ties;
        // From the farthest below to the farthest above.
        all.sort_unstable_by_key(|(apart, is_above)| {
            let nanos = i128::try_from(apart.as_nanos()).unwrap();
            if *is_above { nanos } else { -nanos }
        });
        Self { same: same(a, b), even: even(above, below), apart: all[all.len() / 2].0 }
    }

    /// One measure alone is not enough for the distance: where everything takes now long and now short, medians of two equal
    /// lots lie far apart, too.
    fn look_alike(&self) -> bool {
        self.same > 0.01 && (self.apart < FAR || self.even > 0.01)
    }
}

/// What a difference is called that is worth looking at, however seldom.
const FAR: Duration = Duration::from_millis(2);

/// The chance that so many of one kind, or more, come of so many throws of a coin: normal, with correction for continuity.
fn even(one: usize, other: usize) -> f64 {
    let all = count(one + other);
    if all == 0.0 {
        return 1.0;
    }
    let z = ((count(one) - count(other)).abs() - 1.0).max(0.0) / all.sqrt();
    // 2 (1 - Φ(z)), by Abramowitz and Stegun 7.1.26.
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / 0.327_591_1f64.mul_add(x, 1.0);
    let poly = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    poly.into_iter().fold(0.0, |sum: f64, c: f64| sum.mul_add(t, c)) * t * (-x * x).exp()
}

/// Holds two lots that must look alike against all measures. `take` takes so many times its samples, in pairs. One lot in a
/// hundred looks different by accident, and more do while the machine does much else: it is looked at again with twice, then
/// with four times as many, in which an accident is lost and a difference stands out.
pub(crate) async fn assert_alike(mut take: impl AsyncFnMut(u16) -> [Vec<Duration>; 2]) {
    let mut seen = Vec::new();
    for times in [1, 2, 4] {
        let [a, b] = take(times).await;
        let pairs = Pairs::of(&a, &b);
        eprintln!("{} and {} samples: {pairs:?}", a.len(), b.len());
        if pairs.look_alike() {
            return;
        }
        seen.push(pairs);
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
        assert!(Pairs::of(&one, &lot(&mut dice, 2_500)).apart > FAR);
    }

    #[tokio::test]
    #[should_panic(expected = "they can be told apart")]
    async fn what_takes_longer_each_time_is_told_apart() {
        let mut dice = Dice(11);
        assert_alike(async |_| [lot(&mut dice, 0), lot(&mut dice, 50)]).await;
    }

    /// Pairs on a machine that does much else: for a while everything takes twice as long, and each now and then far longer.
    fn torn(dice: &mut Dice, pairs: u16, shift_us: u64) -> [Vec<Duration>; 2] {
        let (mut took, mut slow) = ([Vec::new(), Vec::new()], false);
        for _ in 0..pairs {
            if dice.index(20) == 0 {
                slow = !slow;
            }
            for (took, shift_us) in took.iter_mut().zip([0, shift_us]) {
                let around = 8_000_000 + dice.roll(4_000_000) + 1_000 * shift_us;
                let rare = if dice.index(10) == 0 { dice.roll(30_000_000) } else { 0 };
                took.push(Duration::from_nanos(around * if slow { 2 } else { 1 } + rare));
            }
        }
        took
    }

    #[tokio::test]
    async fn other_work_makes_no_difference_and_hides_none() {
        let mut dice = Dice(23);
        for _ in 0..50 {
            assert_alike(async |times| torn(&mut dice, 100 * times, 0)).await;
        }
        let mut missed = 0;
        for _ in 0..50 {
            let lots = [1, 2, 4].map(|times| torn(&mut dice, 100 * times, 2_500));
            missed += usize::from(lots.iter().any(|[a, b]| Pairs::of(a, b).look_alike()));
        }
        assert_eq!(missed, 0, "2.5 ms are found however much else there is");
    }

    #[test]
    fn a_coin_that_falls_on_one_side_is_none() {
        for (one, other, p) in [(50, 50, 1.0), (60, 40, 0.0574), (65, 35, 0.0037), (100, 0, 0.0), (0, 0, 1.0)] {
            assert!((even(one, other) - p).abs() < 0.0005, "{one} {other}: {}", even(one, other));
            assert!((even(one, other) - even(other, one)).abs() < 1e-9);
        }
    }

    /// Values that are worked out by hand: of 4 and 4 samples, the farthest apart is 1, then 0.5.
    #[test]
    fn the_distance_is_that_of_the_two_steps() {
        let ms = |all: [u64; 4]| all.map(Duration::from_millis);
        assert!(same(&ms([1, 2, 3, 4]), &ms([5, 6, 7, 8])) < 0.05);
        assert!(same(&ms([1, 2, 3, 4]), &ms([3, 4, 5, 6])) > 0.3);
    }
}
