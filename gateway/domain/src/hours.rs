// SPDX-License-Identifier: Apache-2.0
//! Hours of a week, as `mon-fri 08:00-18:00 Europe/Berlin`.

use crate::id::ParseIdError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u16 = 24 * 60;

/// Hours of some days of every week, in the time of one zone. Hours that end before they begin go on after midnight,
/// and belong to the day on which they began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hours {
    /// Bit 0 is Monday, bit 6 Sunday; never 0.
    days: u8,
    /// Minutes from midnight, 0 to 1,439.
    from: u16,
    /// First minute outside, 1 to 1,440; not equal to `from`.
    until: u16,
    zone: Arc<str>,
}

impl Hours {
    /// The name of the zone in the IANA database, or `UTC`.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Whether a local time belongs to them: the day (0 is Monday, to 6) and the minute of that day (0 to 1,439).
    pub fn contain(&self, day: u8, minute: u16) -> bool {
        let on = |day: u8| self.days >> (day % 7) & 1 == 1;
        if self.from < self.until {
            on(day) && self.from <= minute && minute < self.until
        } else {
            (on(day) && self.from <= minute) || (on(day + 6) && minute < self.until)
        }
    }

    /// How many minutes it takes until a local time no longer belongs to them; 0 for one that does not, none when the
    /// whole week does. A change of the clocks in between is not counted.
    pub fn left(&self, day: u8, minute: u16) -> Option<u32> {
        let week = 7 * u32::from(DAY);
        let start = u32::from(day % 7) * u32::from(DAY) + u32::from(minute);
        // They change at two minutes of a day only: every step but the last is a long one.
        let mut left = 0;
        while left < week {
            let at = (start + left) % week;
            let (day, minute) = (at / u32::from(DAY), at % u32::from(DAY));
            let (day, minute) = (u8::try_from(day).unwrap_or(0), u16::try_from(minute).unwrap_or(0));
            if !self.contain(day, minute) {
                return Some(left);
            }
            let edge = [self.from, self.until, DAY].into_iter().filter(|edge| *edge > minute).min().unwrap_or(DAY);
            left += u32::from(edge - minute);
        }
        None
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut day = 0;
        while day < DAYS.len() {
            let run = (day..DAYS.len()).take_while(|d| self.days >> d & 1 == 1).count();
            if run > 0 {
                if !first {
                    f.write_str(",")?;
                }
                first = false;
                f.write_str(DAYS.get(day).copied().unwrap_or_default())?;
                if run > 1 {
                    write!(f, "-{}", DAYS.get(day + run - 1).copied().unwrap_or_default())?;
                }
            }
            day += run.max(1);
        }
        let (from, until) = (self.from, self.until);
        write!(f, " {:02}:{:02}-{:02}:{:02} {}", from / 60, from % 60, until / 60, until % 60, self.zone)
    }
}

impl FromStr for Hours {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(text, "time such as mon-fri 08:00-18:00 Europe/Berlin");
        let mut words = text.split(' ').filter(|w| !w.is_empty());
        let (days, span, zone) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(days), Some(span), zone, None) => (days, span, zone.unwrap_or("UTC")),
            _ => return Err(wrong()),
        };
        let place = |word: &str| DAYS.iter().position(|d| *d == word).ok_or_else(wrong);
        let mut bits = 0u8;
        for run in days.split(',') {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let (first, last) = (place(first)?, place(last)?);
            // sat-mon goes around the end of the week.
            let length = (last + 7 - first) % 7;
            (0..=length).for_each(|step| bits |= 1 << ((first + step) % 7));
        }
        let clock = |word: &str| -> Result<u16, ParseIdError> {
            let (hour, minute) = word.split_once(':').ok_or_else(wrong)?;
            let two = |t: &str| {
                (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u16>().ok()).flatten()
            };
            let (hour, minute) = two(hour).zip(two(minute)).ok_or_else(wrong)?;
            if hour > 24 || minute > 59 || hour * 60 + minute > DAY { Err(wrong()) } else { Ok(hour * 60 + minute) }
        };
        let (from, until) = span.split_once('-').ok_or_else(wrong)?;
        let (from, until) = (clock(from)?, clock(until)?);
        let until = if until == 0 { DAY } else { until };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+');
        if from >= DAY || from == until || zone.len() > 64 || !zone.bytes().all(plain) {
            return Err(wrong());
        }
        Ok(Self { days: bits, from, until, zone: Arc::from(zone) })
    }
}

impl Serialize for Hours {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Hours {
        text.parse().unwrap()
    }

    #[test]
    fn hours_hold_their_days_and_minutes_and_nothing_else() {
        let work = hours("mon-fri 08:00-18:00 Europe/Berlin");
        assert_eq!(work.zone(), "Europe/Berlin");
        for (day, minute, inside) in
            [(0, 480, true), (4, 1079, true), (4, 1080, false), (0, 479, false), (5, 600, false)]
        {
            assert_eq!(work.contain(day, minute), inside, "{day} {minute}");
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_began() {
        let night = hours("fri 22:00-06:00 UTC");
        for (day, minute, inside) in [
            (4, 1320, true),
            (4, 1439, true),
            (5, 0, true),
            (5, 359, true),
            (5, 360, false),
            (4, 60, false),
            (6, 60, false),
        ] {
            assert_eq!(night.contain(day, minute), inside, "{day} {minute}");
        }
        let sunday = hours("sun 23:00-01:00");
        assert!(sunday.contain(0, 30) && !sunday.contain(1, 30));
    }

    #[test]
    fn what_is_left_of_hours_ends_with_the_first_minute_outside() {
        for (text, day, minute, left) in [
            ("mon-fri 08:00-18:00", 0, 480, Some(600)),
            ("mon-fri 08:00-18:00", 0, 1079, Some(1)),
            ("mon-fri 08:00-18:00", 0, 1080, Some(0)),
            ("fri 22:00-06:00", 4, 1439, Some(361)),
            ("fri-sat 00:00-24:00", 4, 60, Some(2 * 1440 - 60)),
            ("sat-sun,mon 00:00-24:00", 6, 1439, Some(1441)),
            ("mon-sun 00:00-24:00", 3, 7, None),
        ] {
            assert_eq!(hours(text).left(day, minute), left, "{text}");
        }
    }

    #[test]
    fn hours_survive_their_text() {
        for text in
            ["mon-fri 08:00-18:00 Europe/Berlin", "mon,wed,sat-sun 00:00-24:00 UTC", "tue 22:00-06:30 Etc/GMT+5"]
        {
            assert_eq!(hours(text).to_string(), text);
        }
        assert_eq!(hours("sat-mon 00:00-00:00").to_string(), "mon,sat-sun 00:00-24:00 UTC");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "mon",
            "mon 8:00-9:00",
            "mon 08:00",
            "day 08:00-09:00",
            "mon 08:00-08:00",
            "mon 24:00-01:00",
            "mon 08:60-09:00",
            "mon 08:00-25:00",
            "mon 08:00-24:01",
            "mon 08:00-09:00 ../etc",
            "mon 08:00-09:00 UTC x",
            "mon- 08:00-09:00",
            "mon 08:00-09:00-10:00",
            "mon +8:00-09:00",
        ] {
            assert!(bad.parse::<Hours>().is_err(), "{bad:?}");
        }
    }
}
