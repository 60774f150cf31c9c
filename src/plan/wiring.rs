//! Where outlets hang within their PDU: on which branch, on which phases, as the device tells, or the site in
//! its place. Where nobody tells, or what the site names is not there, an outlet counts on each.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::event::About;
use crate::model::id::OutletId;
use crate::model::metric::Scope;
use crate::model::topology::Part;
use crate::model::view::PduView;

use super::site::Site;
use super::world::Share;

/// Thousandths of what is drawn between two lines of three that flow through each, against the neutral: 1 / √3.
const BETWEEN: i64 = 578;
/// The same of what is drawn evenly from three.
const EVENLY: i64 = 334;

/// Something that the configuration names and that its PDU, once its parts are known, does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strange {
    /// The kind of event that tells of it.
    pub kind: &'static str,
    /// The outlet or PDU.
    pub about: About,
    /// In words, with what that comes to.
    pub text: String,
}

/// What `[[outlet]]` and `ratings_a` name and their PDUs do not have.
pub fn strange(site: &Site, views: &[Arc<PduView>]) -> Vec<Strange> {
    let named = site.outlets.iter().filter(|(_, of)| of.branch.is_some() || !of.phases.is_empty());
    let wired = named.filter_map(|(id, _)| {
        let view = views.iter().find(|view| view.id == id.pdu)?;
        let at = view.layout.outlet(id.number)?;
        let part = &view.layout.parts(Scope::Outlet)[usize::from(at)];
        let strange = Wiring::of(view, part, site, id).strange;
        let (branches, phases) = (parts(view, Scope::Branch), parts(view, Scope::Phase));
        let text = format!(
            "[[outlet]] \"{id}\" names {}, and its PDU has no such part (branches: {}; phases: {}): it counts on each of them",
            strange.join(" and "),
            branches.join(", "),
            phases.join(", ")
        );
        let told = Strange { kind: "outlet.unknown_part", about: About::outlet(id), text };
        (!strange.is_empty()).then_some(told)
    });
    let seen = views.iter().filter(|view| view.observed.is_some());
    wired.chain(seen.filter_map(|view| unrated(site, view))).collect()
}

fn parts(view: &PduView, scope: Scope) -> Vec<&str> {
    view.layout.parts(scope).iter().map(|part| part.id.as_str()).collect()
}

/// What `ratings_a` of a PDU names that it does not have.
fn unrated(site: &Site, view: &PduView) -> Option<Strange> {
    let named = site.ratings.keys().filter(|(pdu, _)| *pdu == view.id);
    let mut has: Vec<&str> = [Scope::Inlet, Scope::Phase, Scope::Branch]
        .into_iter()
        .flat_map(|scope| parts(view, scope))
        .collect();
    let outlets = parts(view, Scope::Outlet);
    let is_strange = |part: &&str| !has.contains(part) && !outlets.contains(part);
    let strange: Vec<&str> = named.map(|(_, part)| part.as_str()).filter(is_strange).collect();
    has.push("its outlets by their numbers");
    let text = format!(
        "ratings_a of PDU {} rates {}, and it has no such part (it has {}): that holds nothing",
        view.id,
        strange.join(" and "),
        has.join(", ")
    );
    let told = Strange { kind: "pdu.unknown_part", about: About::pdu(&view.id), text };
    (!strange.is_empty()).then_some(told)
}

/// Where an outlet hangs, as the device and the site tell.
pub(super) struct Wiring {
    /// The part's number, branch and phases; nothing else of it.
    pub part: Part,
    /// Whether it is on three phases.
    pub on_three: bool,
    /// What the site names and the PDU does not have: `branch "B9"`. Nobody knows then where it hangs.
    pub strange: Vec<String>,
}

impl Wiring {
    pub(super) fn of(view: &PduView, part: &Part, site: &Site, id: &OutletId) -> Self {
        // Without its names: that is asked of every outlet at every step.
        let Part { number, branch, phase, other_phase, .. } = *part;
        let mut part = Part { number, branch, phase, other_phase, ..Part::default() };
        let spec = site.outlets.get(id);
        let place = |scope, name: &str| {
            let at = view.layout.parts(scope).iter().position(|part| part.id == name)?;
            u16::try_from(at).ok()
        };
        let mut strange = Vec::new();
        if let Some(branch) = spec.and_then(|spec| spec.branch.as_deref()) {
            part.branch = place(Scope::Branch, branch);
            if part.branch.is_none() {
                strange.push(format!("branch \"{branch}\""));
            }
        }
        let names = spec.map_or(&[][..], |spec| &spec.phases);
        let phases: Vec<Option<u16>> = names.iter().map(|n| place(Scope::Phase, n)).collect();
        let missing = names.iter().zip(&phases).filter(|(_, phase)| phase.is_none());
        let missing: Vec<String> = missing.map(|(n, _)| format!("phase \"{n}\"")).collect();
        let mut on_three = names.len() == 3;
        if !missing.is_empty() {
            (part.phase, part.other_phase, on_three) = (None, None, false);
            strange.extend(missing);
        } else if let Some(first) = phases.first().copied().flatten() {
            part.phase = Some(first);
            part.other_phase = phases.get(1).copied().flatten();
        } else if part.phase.is_none()
            && let Some(branch) = part.branch
            && let Some(branch) = view.layout.parts(Scope::Branch).get(usize::from(branch))
        {
            (part.phase, part.other_phase) = (branch.phase, branch.other_phase);
        }
        Self { part, on_three, strange }
    }

    /// Limits of which it is below one; below each, if nobody knows which, or none of the known is rated.
    pub(super) fn below(known: Option<u16>, all: &[(u16, usize)], permille: i64) -> Vec<Share> {
        let is_above = |at: u16| known.is_none_or(|known| known == at);
        let above = all.iter().filter(|(at, _)| is_above(*at));
        above.map(|(_, limit)| Share { limit: *limit, permille }).collect()
    }

    /// The lines that it is on, and how much of what it draws flows through each.
    pub(super) fn lines(&self, all: &[(u16, usize)], count: usize) -> Vec<Share> {
        if self.on_three {
            return Self::below(None, all, EVENLY);
        }
        match (self.part.phase, self.part.other_phase) {
            (Some(one), Some(other)) if count > 1 => {
                let mut lines = Self::below(Some(one), all, BETWEEN);
                lines.extend(Self::below(Some(other), all, BETWEEN));
                lines
            }
            (phase, _) => Self::below(phase, all, 1_000),
        }
    }

    /// The limits, by place, that it may be below or not.
    pub(super) fn unsure(&self, branches: &[(u16, usize)], lines: &[(u16, usize)]) -> Vec<usize> {
        let (branch, phase) = (self.part.branch, self.part.phase);
        let of = |known: bool, all: &[(u16, usize)]| {
            let all: Vec<usize> = all.iter().map(|(_, limit)| *limit).collect();
            if known || all.len() < 2 { Vec::new() } else { all }
        };
        [of(branch.is_some(), branches), of(phase.is_some() || self.on_three, lines)].concat()
    }

    /// The limits that it counts on since nobody knows which of them it is on: those of the kinds that are named wrongly.
    pub(super) fn beside(&self, branches: &[(u16, usize)], lines: &[(u16, usize)]) -> Vec<usize> {
        let of = |kind: &str, all: &[(u16, usize)]| {
            let named = self.strange.iter().any(|part| part.starts_with(kind));
            if named { all.iter().map(|(_, limit)| *limit).collect() } else { Vec::new() }
        };
        [of("branch", branches), of("phase", lines)].concat()
    }

    /// Of three phases those that it may be on, from 0, with the thousandths of what it draws that flow through each.
    pub(super) fn on(&self) -> Vec<(usize, i64)> {
        let place = |phase: Option<u16>| phase.map(usize::from);
        match (self.on_three, place(self.part.phase), place(self.part.other_phase)) {
            (true, ..) => (0..3).map(|at| (at, EVENLY)).collect(),
            (_, Some(one), Some(other)) => vec![(one, BETWEEN), (other, BETWEEN)],
            (_, Some(one), None) => vec![(one, 1_000)],
            (_, None, _) => (0..3).map(|at| (at, 1_000)).collect(),
        }
    }

    /// The names of the branches and phases that it may be on.
    pub(super) fn names(&self, view: &PduView) -> BTreeSet<String> {
        let named = |scope, known: &[Option<u16>]| {
            let known: Vec<u16> = known.iter().flatten().copied().collect();
            let parts = (0..).zip(view.layout.parts(scope));
            let own = parts.filter(|(at, _)| known.is_empty() || known.contains(at));
            own.map(|(_, part)| part.id.clone()).collect::<Vec<_>>()
        };
        let phases = [self.part.phase, self.part.other_phase].map(|p| p.filter(|_| !self.on_three));
        let branches = named(Scope::Branch, &[self.part.branch]).into_iter();
        branches.chain(named(Scope::Phase, &phases)).collect()
    }
}
