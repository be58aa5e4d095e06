//! Python's repr() of a float: the shortest digits that read back, with its switch to exponents.

pub fn float_repr(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// round(value, digits) as Python rounds: half to even on the exact binary value.
pub fn round_to(value: f64, digits: i32) -> f64 {
    if !value.is_finite() {
        return value;
    }
    if digits >= 0 {
        return format!("{value:.*}", digits.min(300) as usize).parse().unwrap_or(value);
    }
    let scale = 10f64.powi(-digits);
    (value / scale).round_ties_even() * scale
}
