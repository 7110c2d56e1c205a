//! Dates and times of day in UTC, for output.

use std::fmt::Write;

/// A moment as a calendar and a clock in UTC show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    unix_seconds: u64,
    nanosecond: u32,
    year: u64,
    /// 1 to 12.
    month: u32,
    /// 1 to 31.
    day: u32,
    /// 0 to 365.
    day_of_year: u32,
    /// 0 to 6, 0 is Sunday.
    weekday: u32,
    hour: u32,
    minute: u32,
    second: u32,
}

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The conversions that [`Date::convert`] knows.
pub(crate) const CONVERSIONS: &str = "aAbBCdDeFHIjmMnNpRsStTuwyYzZ@";

impl Date {
    /// The date `nanoseconds` after 1970-01-01T00:00:00Z.
    pub(crate) fn from_unix_nanoseconds(nanoseconds: u128) -> Self {
        let unix_seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX);
        let second_of_day = (unix_seconds % 86_400) as u32;
        let days = unix_seconds / 86_400;
        // Years are counted from March, so that the leap day is the last of its year; 400 years
        // always have 146,097 days (0000-03-01 is 719,468 days before 1970-01-01).
        let since_march = days + 719_468;
        let era = since_march / 146_097;
        let day_of_era = since_march % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_from_march + 2) / 153;
        let day = (day_from_march - (153 * month_from_march + 2) / 5 + 1) as u32;
        let january_or_february = month_from_march >= 10;
        let month = if january_or_february {
            month_from_march - 9
        } else {
            month_from_march + 3
        };
        let year = era * 400 + year_of_era + u64::from(january_or_february);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let day_of_year = if january_or_february {
            day_from_march - 306
        } else {
            day_from_march + 59 + u64::from(leap)
        };
        Self {
            unix_seconds,
            nanosecond: (nanoseconds % 1_000_000_000) as u32,
            year,
            month: month as u32,
            day,
            day_of_year: day_of_year as u32,
            weekday: ((days + 4) % 7) as u32,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }

    /// `2026-11-21T10:07:01Z`.
    pub(crate) fn iso_8601(&self) -> String {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// `2026-11-21T10:07:01.000250Z`.
    pub(crate) fn iso_8601_with_microseconds(&self) -> String {
        let whole = self.iso_8601();
        format!(
            "{}.{:06}Z",
            whole.trim_end_matches('Z'),
            self.nanosecond / 1_000
        )
    }

    /// Seconds since 1970 with nanoseconds.
    pub(crate) fn unix(&self) -> String {
        format!("{}.{:09}", self.unix_seconds, self.nanosecond)
    }

    /// Appends what the conversion of `strftime` with this letter stands for, and `N` for the
    /// nanoseconds; nothing for a letter that is not in [`CONVERSIONS`].
    pub(crate) fn convert(&self, conversion: char, out: &mut String) {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            ..
        } = *self;
        let weekday = WEEKDAYS
            .get(self.weekday as usize)
            .copied()
            .unwrap_or_default();
        let month_name = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = match conversion {
            'a' => write!(out, "{weekday:.3}"),
            'A' => write!(out, "{weekday}"),
            'b' => write!(out, "{month_name:.3}"),
            'B' => write!(out, "{month_name}"),
            'C' => write!(out, "{:02}", year / 100),
            'd' => write!(out, "{day:02}"),
            'D' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
            'e' => write!(out, "{day:2}"),
            'F' => write!(out, "{year:04}-{month:02}-{day:02}"),
            'H' => write!(out, "{hour:02}"),
            'I' => write!(out, "{:02}", (hour + 11) % 12 + 1),
            'j' => write!(out, "{:03}", self.day_of_year + 1),
            'm' => write!(out, "{month:02}"),
            'M' => write!(out, "{minute:02}"),
            'n' => writeln!(out),
            'N' => write!(out, "{:09}", self.nanosecond),
            'p' => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            'R' => write!(out, "{hour:02}:{minute:02}"),
            's' => write!(out, "{}", self.unix_seconds),
            'S' => write!(out, "{second:02}"),
            't' => write!(out, "\t"),
            'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            'u' => write!(out, "{}", (self.weekday + 6) % 7 + 1),
            'w' => write!(out, "{}", self.weekday),
            'y' => write!(out, "{:02}", year % 100),
            'Y' => write!(out, "{year:04}"),
            'z' => write!(out, "+0000"),
            'Z' => write!(out, "UTC"),
            '@' => write!(out, "@"),
            _ => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(unix_seconds: u128) -> Date {
        Date::from_unix_nanoseconds(unix_seconds * 1_000_000_000 + 250_000)
    }

    /// The expected values are those of `date -u -d @SECONDS +FORMAT`.
    #[test]
    fn agrees_with_the_date_command() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z 001 Thu"),
            (951_782_400, "2000-02-29T00:00:00Z 060 Tue"),
            (978_307_199, "2000-12-31T23:59:59Z 366 Sun"),
            (1_709_210_096, "2024-02-29T12:34:56Z 060 Thu"),
            (1_709_251_200, "2024-03-01T00:00:00Z 061 Fri"),
            (1_735_689_599, "2024-12-31T23:59:59Z 366 Tue"),
            (1_772_323_200, "2026-03-01T00:00:00Z 060 Sun"),
            (4_107_542_400, "2100-03-01T00:00:00Z 060 Mon"),
        ] {
            let date = date(seconds);
            let mut text = date.iso_8601() + " ";
            date.convert('j', &mut text);
            text.push(' ');
            date.convert('a', &mut text);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn converts_as_strftime_does() {
        let date = date(1_709_210_096);
        let mut text = String::new();
        for conversion in CONVERSIONS.chars() {
            date.convert(conversion, &mut text);
            text.push('|');
        }
        let expected = "Thu|Thursday|Feb|February|20|29|02/29/24|29|2024-02-29|12|12|060|02|34|\n|\
            000250000|PM|12:34|1709210096|56|\t|12:34:56|4|4|24|2024|+0000|UTC|@|";
        assert_eq!(text, expected);
        assert_eq!(date.unix(), "1709210096.000250000");
        assert_eq!(
            date.iso_8601_with_microseconds(),
            "2024-02-29T12:34:56.000250Z"
        );
    }
}
