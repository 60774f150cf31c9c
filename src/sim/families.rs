//! The object trees of the families that are simulated, from the vendors' MIBs.

use std::collections::BTreeMap;

use crate::model::ask::Value;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::oid::Oid;

use super::objects::{Form, Object};
use super::physics::Pdu;

/// A family with a simulated SNMP agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// APC rPDU2 (PowerNet-MIB 318.1.1.26).
    ApcRpdu2,
    /// Raritan PX (PDU2-MIB 13742.6).
    RaritanPx2,
    /// Server Technology (Sentry4-MIB 1718.4).
    Sentry4,
}

impl Family {
    /// By the name of the driver that reads it.
    pub const ALL: [(&'static str, Family); 3] = [
        ("apc-rpdu2", Family::ApcRpdu2),
        ("raritan-px2", Family::RaritanPx2),
        ("sentry4", Family::Sentry4),
    ];

    /// The objects of a PDU of this family.
    pub fn tree(self, pdu: &Pdu, serial: &str) -> BTreeMap<Oid, Object> {
        let mut tree = Builder::default();
        match self {
            Family::ApcRpdu2 => apc(&mut tree, pdu, serial),
            Family::RaritanPx2 => raritan(&mut tree, pdu, serial),
            Family::Sentry4 => sentry4(&mut tree, pdu, serial),
        }
        tree.objects
    }
}

#[derive(Default)]
struct Builder {
    objects: BTreeMap<Oid, Object>,
}

impl Builder {
    /// An instance: `column` and the index behind it. The texts stand in this file, so they parse.
    fn put(&mut self, column: &str, index: &[u32], object: Object) {
        let oid: Oid = column.parse().unwrap_or_default();
        self.objects.insert(oid.child(index).unwrap_or_default(), object);
    }

    fn text(&mut self, column: &str, index: &[u32], text: &str) {
        self.put(column, index, Object::Fixed(Value::Bytes(text.as_bytes().into())));
    }

    fn number(&mut self, column: &str, index: &[u32], number: i64) {
        self.put(column, index, Object::Fixed(Value::Integer(number)));
    }

    fn meter(&mut self, column: &str, index: &[u32], at: (Scope, u16, Metric), form: Form) {
        let (scope, part, metric) = at;
        self.put(column, index, Object::Meter { scope, part, metric, form });
    }

    fn system(&mut self, descr: &str, object_id: &str, name: &str) {
        self.text("1.3.6.1.2.1.1.1", &[0], descr);
        let object_id = object_id.parse().unwrap_or_default();
        self.put("1.3.6.1.2.1.1.2", &[0], Object::Fixed(Value::Oid(object_id)));
        self.text("1.3.6.1.2.1.1.5", &[0], name);
    }
}

fn counts(text: &str) -> Form {
    // The texts stand in this file; the tests read them all back.
    text.parse().map_or(Form::Digits(0), Form::Count)
}

fn states(on: i64, off: i64) -> Form {
    Form::States(vec![(Word::On, on), (Word::Off, off)])
}

fn apc(tree: &mut Builder, pdu: &Pdu, serial: &str) {
    use Metric as M;
    use Scope as S;
    const R: &str = "1.3.6.1.4.1.318.1.1.26";
    let c = |tail: &str| format!("{R}.{tail}");
    let descr = format!(
        "APC Web/SNMP Management Card (MB:v4.1.0 PF:v6.9.6 PN:apc_hw05_aos_696.bin AF1:v6.9.6 AN1:apc_hw05_rpdu2g_696.bin MN:AP8981 HR:02 SN: {serial} MD:01/02/2020)"
    );
    tree.system(&descr, "1.3.6.1.4.1.318.1.3.4.6", "apc-sim");
    for (column, text) in [("3", "Rack PDU"), ("6", "v6.9.6"), ("8", "AP8981"), ("9", serial)] {
        tree.text(&c(&format!("2.1.{column}")), &[1], text);
    }
    tree.number(&c("4.2.1.9"), &[1], pdu.rating_ma / 1_000);
    tree.number(&c("4.2.1.12"), &[1], pdu.rating_ma / 1_000);
    tree.number(&c("4.3.1.1"), &[1], 1);
    tree.text(&c("4.3.1.3"), &[1], "Rack PDU");
    let load = Form::States(vec![(Word::Normal, 2)]);
    for (column, metric, form) in [
        ("4.3.1.4", M::LoadState, load.clone()),
        ("4.3.1.5", M::Power, counts("0.01 kW")),
        ("4.3.1.9", M::Energy, counts("0.1 kWh")),
        ("4.3.1.16", M::ApparentPower, counts("0.01 kVA")),
        ("4.3.1.17", M::PowerFactor, counts("0.01")),
    ] {
        tree.meter(&c(column), &[1], (S::Inlet, 0, metric), form);
    }
    for phase in 0..pdu.phases {
        let row = [u32::from(phase) + 1];
        tree.number(&c("6.3.1.1"), &row, i64::from(row[0]));
        for (column, metric, form) in [
            ("6.3.1.4", M::LoadState, load.clone()),
            ("6.3.1.5", M::Current, counts("0.1 A")),
            ("6.3.1.6", M::Voltage, counts("1 V")),
            ("6.3.1.7", M::Power, counts("0.01 kW")),
            ("6.3.1.8", M::ApparentPower, counts("0.01 kVA")),
            ("6.3.1.9", M::PowerFactor, counts("0.01")),
        ] {
            tree.meter(&c(column), &row, (S::Phase, phase, metric), form);
        }
    }
    for bank in 0..pdu.branches {
        let row = [u32::from(bank) + 1];
        tree.number(&c("8.2.1.5"), &row, 16);
        tree.number(&c("8.3.1.1"), &row, i64::from(row[0]));
        tree.meter(&c("8.3.1.4"), &row, (S::Branch, bank, M::LoadState), load.clone());
        tree.meter(&c("8.3.1.5"), &row, (S::Branch, bank, M::Current), counts("0.1 A"));
    }
    for outlet in 0..pdu.outlets() {
        let row = [u32::from(outlet) + 1];
        let name = format!("Outlet {}", row[0]);
        tree.number(&c("9.2.2.1.6"), &row, i64::from(pdu.branch_of(outlet)) + 1);
        tree.number(&c("9.2.3.1.1"), &row, i64::from(row[0]));
        tree.text(&c("9.2.3.1.3"), &row, &name);
        let pending = Form::States(vec![(Word::Yes, 1), (Word::No, 2)]);
        tree.meter(&c("9.2.3.1.5"), &row, (S::Outlet, outlet, M::State), states(2, 1));
        tree.meter(&c("9.2.3.1.6"), &row, (S::Outlet, outlet, M::Pending), pending.clone());
        tree.put(&c("9.2.1.1.5"), &row, Object::Startup { outlet });
        let command =
            Object::Command { outlet, on: 1, off: 2, cycle: Some(3), reads: states(1, 2) };
        tree.put(&c("9.2.4.1.5"), &row, command.clone());
        tree.meter(&c("9.4.3.1.6"), &row, (S::Outlet, outlet, M::Current), counts("0.1 A"));
        tree.meter(&c("9.4.3.1.7"), &row, (S::Outlet, outlet, M::Power), counts("1 W"));
        tree.meter(&c("9.4.3.1.11"), &row, (S::Outlet, outlet, M::Energy), counts("0.1 kWh"));
        // The compatibility tree moves the same relays.
        const SPDU: &str = "1.3.6.1.4.1.318.1.1.4.4.2.1";
        tree.number(&format!("{SPDU}.1"), &row, i64::from(row[0]));
        tree.meter(&format!("{SPDU}.2"), &row, (S::Outlet, outlet, M::Pending), pending);
        tree.put(&format!("{SPDU}.3"), &row, command);
        tree.text(&format!("{SPDU}.4"), &row, &name);
    }
    tree.number(&c("10.2.2.1.1"), &[1], 1);
    tree.text(&c("10.2.2.1.3"), &[1], "rack front");
    tree.meter(&c("10.2.2.1.8"), &[1], (S::Sensor, 0, M::Temperature), counts("0.1 C"));
    tree.meter(&c("10.2.2.1.10"), &[1], (S::Sensor, 0, M::Humidity), counts("1 %"));
}

fn raritan(tree: &mut Builder, pdu: &Pdu, serial: &str) {
    use Metric as M;
    use Scope as S;
    const R: &str = "1.3.6.1.4.1.13742.6";
    let c = |tail: &str| format!("{R}.{tail}");
    tree.system("Raritan PDU, MD:PX3-5493U-K2 HW:0x10 FW:4.2.0.5-50274", R, "raritan-sim");
    tree.text(&c("3.2.1.1.3"), &[1], "PX3-5493U-K2");
    tree.text(&c("3.2.1.1.4"), &[1], serial);
    tree.text(&c("3.2.2.1.13"), &[1], "raritan-sim");
    tree.text(&c("3.2.3.1.6"), &[1, 1, 1], "4.2.0.5-50274");
    // Sensor type, metric, decimal digits.
    let sensors = [
        (1, M::Current, 3),
        (4, M::Voltage, 1),
        (5, M::Power, 0),
        (6, M::ApparentPower, 0),
        (7, M::PowerFactor, 2),
        (8, M::Energy, 0),
        (23, M::Frequency, 1),
    ];
    let table =
        |tree: &mut Builder, columns: [&str; 3], index: &[u32], scope, part, skip: &[u32]| {
            let [value, state, digits] = columns;
            for (kind, metric, places) in sensors.iter().filter(|(kind, ..)| !skip.contains(kind)) {
                let row: Vec<u32> = index.iter().copied().chain([*kind]).collect();
                tree.meter(&c(value), &row, (scope, part, *metric), Form::Digits(*places));
                tree.number(&c(state), &row, 4); // normal
                tree.number(&c(digits), &row, i64::from(*places));
            }
        };
    tree.text(&c("3.3.3.1.2"), &[1, 1], "I1");
    tree.text(&c("3.3.3.1.7"), &[1, 1], &format!("{}A", pdu.rating_ma / 1_000));
    // A three-phase inlet has no voltage of its own.
    let inlet_skips: &[u32] = if pdu.phases > 1 { &[4] } else { &[] };
    table(tree, ["5.2.3.1.4", "5.2.3.1.3", "3.3.4.1.7"], &[1, 1], S::Inlet, 0, inlet_skips);
    if pdu.phases > 1 {
        for phase in 0..pdu.phases {
            let index = [1, 1, u32::from(phase) + 1];
            tree.number(&c("3.3.5.1.1"), &index, i64::from(phase) + 1);
            table(tree, ["5.2.4.1.4", "5.2.4.1.3", "3.3.6.1.7"], &index, S::Phase, phase, &[23]);
        }
    }
    for branch in 0..pdu.branches {
        let index = [1, u32::from(branch) + 1];
        tree.text(&c("3.4.3.1.2"), &index, &format!("C{}", branch + 1));
        tree.text(&c("3.4.3.1.5"), &index, "16A");
        table(
            tree,
            ["5.3.3.1.4", "5.3.3.1.3", "3.4.4.1.7"],
            &index,
            S::Branch,
            branch,
            &[4, 5, 6, 7, 8, 23],
        );
        tree.number(&c("5.3.3.1.3"), &[1, index[1], 15], 1); // breaker closed
    }
    for outlet in 0..pdu.outlets() {
        let index = [1, u32::from(outlet) + 1];
        tree.text(&c("3.5.3.1.2"), &index, &index[1].to_string());
        tree.text(&c("3.5.3.1.3"), &index, &format!("Outlet {}", index[1]));
        tree.text(&c("3.5.3.1.7"), &index, "10A");
        tree.number(&c("3.5.3.1.28"), &index, 1);
        let command =
            Object::Command { outlet, on: 1, off: 0, cycle: Some(2), reads: states(1, 0) };
        tree.put(&c("4.1.2.1.2"), &index, command);
        tree.meter(&c("4.1.2.1.3"), &index, (S::Outlet, outlet, M::State), states(7, 8));
        table(tree, ["5.4.3.1.4", "5.4.3.1.3", "3.5.4.1.7"], &index, S::Outlet, outlet, &[]);
        tree.meter(
            &c("5.4.3.1.3"),
            &[1, index[1], 14],
            (S::Outlet, outlet, M::State),
            states(7, 8),
        );
    }
    for (sensor, kind, metric, name) in
        [(1, 10, M::Temperature, "cold aisle"), (2, 11, M::Humidity, "cold aisle humidity")]
    {
        let index = [1, sensor];
        tree.number(&c("3.6.3.1.2"), &index, kind);
        tree.text(&c("3.6.3.1.4"), &index, name);
        tree.number(&c("3.6.3.1.17"), &index, 1);
        tree.number(&c("5.5.3.1.3"), &index, 4);
        tree.meter(&c("5.5.3.1.4"), &index, (S::Sensor, sensor as u16, metric), Form::Digits(1));
    }
}

fn sentry4(tree: &mut Builder, pdu: &Pdu, serial: &str) {
    use Metric as M;
    use Scope as S;
    const R: &str = "1.3.6.1.4.1.1718.4";
    let c = |tail: &str| format!("{R}.1.{tail}");
    tree.system("Sentry Switched PDU", R, "sentry-sim");
    tree.text(&c("1.1.3"), &[0], "Version 8.0v");
    tree.text(&c("2.2.1.3"), &[1], "Master");
    tree.text(&c("2.2.1.4"), &[1], serial);
    tree.text(&c("2.2.1.5"), &[1], "C2WG24HE-YCFAM66");
    let cord = [1, 1];
    tree.text(&c("3.2.1.3"), &cord, "Master_Cord_A");
    tree.number(&c("3.2.1.10"), &cord, pdu.rating_ma / 1_000);
    for (column, metric, form) in [
        ("3.3.1.3", M::Power, counts("1 W")),
        ("3.3.1.5", M::ApparentPower, counts("1 VA")),
        ("3.3.1.7", M::Load, counts("0.1 %")),
        ("3.3.1.8", M::PowerFactor, counts("0.01")),
        ("3.3.1.10", M::Energy, counts("0.1 kWh")),
        ("3.3.1.11", M::Frequency, counts("0.1 Hz")),
    ] {
        tree.meter(&c(column), &cord, (S::Inlet, 0, metric), form);
    }
    tree.number(&c("3.3.1.1"), &cord, 1);
    for phase in 0..pdu.phases {
        let index = [1, 1, u32::from(phase) + 1];
        tree.text(&c("5.2.1.4"), &index, &format!("AA:L{}-N", phase + 1));
        for (column, metric, form) in [
            ("5.3.1.3", M::Voltage, counts("0.1 V")),
            ("5.3.1.6", M::Current, counts("0.01 A")),
            ("5.3.1.8", M::Power, counts("1 W")),
            ("5.3.1.9", M::ApparentPower, counts("1 VA")),
        ] {
            tree.meter(&c(column), &index, (S::Phase, phase, metric), form);
        }
    }
    for branch in 0..pdu.branches {
        let index = [1, 1, u32::from(branch) + 1];
        tree.text(&c("7.2.1.4"), &index, &format!("AA:BR{}", branch + 1));
        tree.number(&c("7.2.1.6"), &index, 16);
        tree.number(&c("7.3.1.1"), &index, 1);
        tree.meter(&c("7.3.1.3"), &index, (S::Branch, branch, M::Current), counts("0.01 A"));
    }
    for outlet in 0..pdu.outlets() {
        let index = [1, 1, u32::from(outlet) + 1];
        tree.text(&c("8.2.1.2"), &index, &format!("AA{}", outlet + 1));
        tree.text(&c("8.2.1.3"), &index, &format!("Master_Outlet_{}", outlet + 1));
        for (column, metric, form) in [
            ("8.3.1.1", M::State, states(1, 2)),
            ("8.3.1.3", M::Current, counts("0.01 A")),
            ("8.3.1.6", M::Voltage, counts("0.1 V")),
            ("8.3.1.7", M::Power, counts("1 W")),
            ("8.3.1.8", M::ApparentPower, counts("1 VA")),
            ("8.3.1.10", M::PowerFactor, counts("0.01")),
            ("8.3.1.14", M::Energy, counts("1 Wh")),
        ] {
            tree.meter(&c(column), &index, (S::Outlet, outlet, metric), form);
        }
        let command =
            Object::Command { outlet, on: 1, off: 2, cycle: Some(3), reads: Form::States(vec![]) };
        tree.put(&c("8.5.1.2"), &index, command);
    }
    tree.number(&c("9.1.10"), &[0], 0); // Celsius
    for sensor in 0..2 {
        let index = [1, sensor + 1];
        tree.text(&c("9.2.1.3"), &index, &format!("Temp_Sensor_A{}", sensor + 1));
        tree.text(&c("10.2.1.3"), &index, &format!("Humid_Sensor_A{}", sensor + 1));
        // The second socket is empty: -41.0 says so.
        if sensor == 0 {
            tree.meter(&c("9.3.1.1"), &index, (S::Sensor, 0, M::Temperature), counts("0.1 C"));
            tree.meter(&c("10.3.1.1"), &index, (S::Sensor, 0, M::Humidity), counts("1 %"));
        } else {
            tree.number(&c("9.3.1.1"), &index, -410);
            tree.number(&c("10.3.1.1"), &index, -1);
        }
    }
}
