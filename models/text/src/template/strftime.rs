//! strftime of a civil time in the C locale. The time comes from the caller: a render is a function
//! of its inputs.

use crate::fault::{Fault, Outcome};

/// Local civil time; `year` 0 means that none was given.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Clock {
    pub year: i32,
    pub month: i32,
    pub day: i32,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
}

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
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Clock {
    fn is_valid(&self) -> bool {
        (1..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..=60).contains(&self.second)
    }

    /// 1-based day of the year.
    fn year_day(&self) -> i32 {
        const BEFORE: [i32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let leap = (self.year % 4 == 0 && self.year % 100 != 0) || self.year % 400 == 0;
        let after_february = i32::from(leap && self.month > 2);
        BEFORE[self.month as usize - 1] + after_february + self.day
    }

    /// Sunday is 0.
    fn week_day(&self) -> i32 {
        let before = self.year - 1;
        (before * 365 + before / 4 - before / 100 + before / 400 + self.year_day()) % 7
    }
}

pub fn strftime(format: &str, clock: &Clock) -> Outcome<String> {
    if !clock.is_valid() {
        let message = "the chat template asks for the date (strftime_now) and none was given";
        return Err(Fault::invalid(message));
    }
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            None => out.push('%'),
            Some('-') => {
                let code = chars.next().unwrap_or('%');
                let text = field(code, clock)?;
                let trimmed = text.trim_start_matches(['0', ' ']);
                out.push_str(if trimmed.is_empty() { "0" } else { trimmed });
            }
            Some(code) => out.push_str(&field(code, clock)?),
        }
    }
    Ok(out)
}

fn field(code: char, t: &Clock) -> Outcome<String> {
    let month = MONTHS[t.month as usize - 1];
    let day = DAYS[t.week_day() as usize];
    let hour12 = if t.hour % 12 == 0 { 12 } else { t.hour % 12 };
    Ok(match code {
        'Y' => t.year.to_string(),
        'C' => format!("{:02}", t.year / 100),
        'y' => format!("{:02}", t.year % 100),
        'm' => format!("{:02}", t.month),
        'd' => format!("{:02}", t.day),
        'e' => format!("{:2}", t.day),
        'B' => month.to_owned(),
        'b' | 'h' => month[..3].to_owned(),
        'A' => day.to_owned(),
        'a' => day[..3].to_owned(),
        'H' => format!("{:02}", t.hour),
        'I' => format!("{hour12:02}"),
        'M' => format!("{:02}", t.minute),
        'S' => format!("{:02}", t.second),
        'f' => "000000".to_owned(),
        'p' => (if t.hour < 12 { "AM" } else { "PM" }).to_owned(),
        'j' => format!("{:03}", t.year_day()),
        'w' => t.week_day().to_string(),
        'u' => (if t.week_day() == 0 { 7 } else { t.week_day() }).to_string(),
        'U' => format!("{:02}", (t.year_day() + 6 - t.week_day()) / 7),
        'W' => format!("{:02}", (t.year_day() + 6 - (t.week_day() + 6) % 7) / 7),
        'F' => format!("{}-{:02}-{:02}", t.year, t.month, t.day),
        'D' | 'x' => format!("{:02}/{:02}/{:02}", t.month, t.day, t.year % 100),
        'T' | 'X' => format!("{:02}:{:02}:{:02}", t.hour, t.minute, t.second),
        'R' => format!("{:02}:{:02}", t.hour, t.minute),
        'c' => format!(
            "{} {} {:2} {:02}:{:02}:{:02} {}",
            &day[..3],
            &month[..3],
            t.day,
            t.hour,
            t.minute,
            t.second,
            t.year
        ),
        'z' | 'Z' => String::new(),
        'n' => "\n".to_owned(),
        't' => "\t".to_owned(),
        '%' => "%".to_owned(),
        other => return Err(Fault::invalid(format!("strftime_now: unknown field %{other}"))),
    })
}
