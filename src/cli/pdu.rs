//! Printing a PDU for people.

use crate::wire::pdu::{Field, PduBody};

use super::exit::Outcome;
use super::out;

/// A PDU as a few tables.
pub fn print(pdu: &PduBody) -> Outcome {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let age = pdu.age_ms.map_or(String::new(), |ms| format!(", {ms} ms old"));
    out::line(&format!("{}  {}  {} ({}{age})", pdu.id, pdu.name, pdu.state, pdu.quality));
    if let Some(reason) = &pdu.reason {
        out::line(&format!("  {reason}"));
    }
    out::line(&format!("  {} {}  serial {}  firmware {}  driver {}", or_dash(&pdu.vendor), or_dash(&pdu.model), or_dash(&pdu.serial), or_dash(&pdu.firmware), or_dash(&pdu.driver)));
    let inlet = &pdu.inlet;
    out::line(&format!("  inlet  {} W  {} VA  PF {}  {} A  {} V  {} Hz  {} kWh", field(inlet.power_w), field(inlet.apparent_power_va), field(inlet.power_factor), field(inlet.current_a), field(inlet.voltage_v), field(inlet.frequency_hz), field(inlet.energy_wh.map(|wh| wh.map(|wh| wh / 1_000.0)))));
    let phases: Vec<Vec<String>> = pdu.phases.iter().map(|p| vec![p.id.clone(), field(p.voltage_v), field(p.current_a), field(p.power_w), field(p.rating_a)]).collect();
    if !phases.is_empty() {
        out::table(&["PHASE", "V", "A", "W", "RATING A"], &phases);
    }
    let branches: Vec<Vec<String>> = pdu.branches.iter().map(|b| vec![b.id.clone(), field(b.current_a), field(b.power_w), field(b.rating_a), b.breaker.into()]).collect();
    if !branches.is_empty() {
        out::table(&["BRANCH", "A", "W", "RATING A", "BREAKER"], &branches);
    }
    let outlets: Vec<Vec<String>> = pdu.outlets.iter().map(|o| {
        vec![o.number.to_string(), o.state.into(), field(o.power_w), field(o.current_a), field(o.energy_wh.map(|wh| wh.map(|wh| wh / 1_000.0))), or_dash(&o.name)]
    }).collect();
    if !outlets.is_empty() {
        out::table(&["OUTLET", "STATE", "W", "A", "kWh", "NAME"], &outlets);
    }
    let sensors: Vec<Vec<String>> = pdu.sensors.iter().map(|s| {
        let value = match s.temperature_c {
            Some(_) => format!("{} °C", field(s.temperature_c)),
            None => format!("{} %", field(s.humidity_percent)),
        };
        vec![s.id.clone(), value, or_dash(&s.name)]
    }).collect();
    if !sensors.is_empty() {
        out::table(&["SENSOR", "VALUE", "NAME"], &sensors);
    }
    Ok(())
}

/// A number, `?` where it could not be read, `-` where the device does not have it.
fn field(field: Field) -> String {
    match field {
        Some(Some(value)) => out::number(value),
        Some(None) => "?".into(),
        None => "-".into(),
    }
}
