//! What Python's str methods do to text.

/// str.isspace(): Unicode white space and the four ASCII separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

pub fn strip<'s>(s: &'s str, chars: Option<&str>, left: bool, right: bool) -> &'s str {
    let strips = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
    let mut rest = s;
    if left {
        rest = rest.trim_start_matches(strips);
    }
    if right {
        rest = rest.trim_end_matches(strips);
    }
    rest
}

/// The title case of one letter: Ss for a sharp s, and the digraphs' own middle forms.
fn title_case(c: char) -> String {
    let digraph = match c {
        'Ǆ'..='ǆ' => 'ǅ',
        'Ǉ'..='ǉ' => 'ǈ',
        'Ǌ'..='ǌ' => 'ǋ',
        'Ǳ'..='ǳ' => 'ǲ',
        _ => {
            let mut upper = c.to_uppercase();
            let first: String = upper.next().into_iter().collect();
            return first + &upper.collect::<String>().to_lowercase();
        }
    };
    digraph.to_string()
}

pub fn capitalize(s: &str) -> String {
    let mut chars = s.chars();
    match chars.next() {
        Some(first) => title_case(first) + &chars.as_str().to_lowercase(),
        None => String::new(),
    }
}

/// str.title(): a letter after anything that has no case starts a word.
pub fn title(s: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in s.chars() {
        let cased = c.is_lowercase() || c.is_uppercase();
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.push_str(&title_case(c));
        }
        inside = cased;
    }
    out
}

pub fn swapcase(s: &str) -> String {
    let mut out = String::new();
    for c in s.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
    }
    out
}

pub fn justify(s: &str, how: &str, width: usize, fill: char) -> String {
    let missing = width.saturating_sub(s.chars().count());
    let run = |n: usize| fill.to_string().repeat(n);
    match how {
        "ljust" => s.to_owned() + &run(missing),
        "rjust" => run(missing) + s,
        "zfill" => {
            let sign = usize::from(s.starts_with(['-', '+']));
            format!("{}{}{}", &s[..sign], "0".repeat(missing), &s[sign..])
        }
        _ => {
            let left = missing / 2 + (missing & width & 1);
            run(left) + s + &run(missing - left)
        }
    }
}

pub fn split<'s>(
    s: &'s str,
    separator: Option<&str>,
    most: Option<usize>,
    from_right: bool,
) -> Vec<&'s str> {
    let most = most.unwrap_or(usize::MAX);
    match separator {
        Some(separator) if from_right => {
            let mut parts: Vec<&str> = s.rsplitn(most.saturating_add(1), separator).collect();
            parts.reverse();
            parts
        }
        Some(separator) => s.splitn(most.saturating_add(1), separator).collect(),
        None => split_spaces(s, most, from_right),
    }
}

fn split_spaces(s: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = strip(s, None, !from_right, from_right);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let (word, after) = if from_right {
            let at = rest
                .rfind(is_space)
                .map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8));
            (&rest[at..], &rest[..at])
        } else {
            let at = rest.find(is_space).unwrap_or(rest.len());
            (&rest[..at], &rest[at..])
        };
        parts.push(word);
        rest = strip(after, None, !from_right, from_right);
    }
    if from_right {
        parts.reverse();
    }
    parts
}

/// Python's line ends: more than \n, and \r\n is one.
pub fn split_lines(s: &str, keep_ends: bool) -> Vec<&str> {
    const ENDS: [char; 10] = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}',
        '\u{2029}',
    ];
    let mut lines = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(ENDS) {
        let mut end = at + rest[at..].chars().next().map_or(0, char::len_utf8);
        if rest[at..].starts_with("\r\n") {
            end += 1;
        }
        lines.push(if keep_ends { &rest[..end] } else { &rest[..at] });
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// str.isdigit() and its family.
pub fn is_kind(s: &str, name: &str) -> bool {
    let all = |test: fn(char) -> bool| !s.is_empty() && s.chars().all(test);
    match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => s.is_ascii(),
        "isdecimal" | "isdigit" => all(|c| c.is_ascii_digit() || (!c.is_ascii() && is_digit(c))),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "islower" => s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase),
        "isupper" => s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase),
        _ => s.chars().any(char::is_alphabetic) && title(s) == s,
    }
}

/// Decimal digits beyond ASCII: numeric characters of the scripts' own digit runs.
fn is_digit(c: char) -> bool {
    c.is_numeric() && matches!(c as u32, 0x660..=0x1bff | 0xa620..=0xabff | 0xff10..=0xff19)
}

pub fn escape_html(s: &str) -> String {
    let mut out = String::new();
    for c in s.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Jinja2's title filter: words after white space, hyphens and opening brackets.
pub fn title_filter(s: &str) -> String {
    let mut out = String::new();
    let mut start = true;
    for c in s.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.extend(c.to_lowercase());
        }
        start = is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    }
    out
}
