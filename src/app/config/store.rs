//! `[store]`: how long readings are kept, and how much of the disk they may take.

use crate::model::document::Fields;
use crate::model::time::Span;
use crate::store::archive::Settings;

/// `[store]`.
pub(super) fn store(root: &Fields<'_>) -> Settings {
    let mut settings = Settings::default();
    let Some(fields) = root.get("store").and_then(|i| i.fields()) else { return settings };
    let number = |key: &'static str, bounds: std::ops::RangeInclusive<i64>| {
        fields.get(key).and_then(|i| i.integer(bounds))
    };
    if let Some(ms) = number("flush_every_ms", 50..=60_000) {
        settings.flush_every = Span(ms as u64);
    }
    let days = [
        ("raw_days", &mut settings.raw_days),
        ("minute_days", &mut settings.minute_days),
        ("hour_days", &mut settings.hour_days),
    ];
    for (key, days) in days {
        *days = number(key, 1..=36_500).unwrap_or(*days);
    }
    settings.budget = number("budget_mib", 16..=1 << 30).map(|mib| (mib as u64) << 20);
    if let Some(percent) = number("free_percent", 0..=90) {
        settings.free_percent = percent as u64;
    }
    fields.done();
    settings
}
