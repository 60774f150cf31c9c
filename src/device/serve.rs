//! Orders carried out by the task that owns the device: looks, refreshes, writes. A write is sent at most once,
//! and only on what is known when its turn comes.

use std::sync::Arc;

use crate::model::metric::{Scope, Word};
use crate::model::reading::Reading;
use crate::model::switching::{Known, Relay, Seen, Terms, state_word};
use crate::model::time::Span;
use crate::model::view::{Health, PduView};
use crate::profile::control::{self, Command};

use super::adopt::Adopted;
use super::orders::{Order, OrderError};
use super::read::Taken;
use super::task::Device;

impl Device {
    pub(super) async fn serve(&mut self, order: Order) {
        if let Some((mut adopted, since)) = self.adopted.take() {
            self.serve_with(&mut adopted, order).await;
            self.adopted = Some((adopted, since));
        } else {
            let why = self.place.view().health.reason().unwrap_or("not polled yet").to_owned();
            let error = OrderError::NotAdopted(why);
            // Whoever asked may have left.
            match order {
                Order::Refresh { .. } => {}
                Order::Look { reply, .. } => drop(reply.send(Err(error))),
                Order::Write { reply, .. } => drop(reply.send(Err(error))),
                Order::Startups { reply } | Order::SetCourse { reply, .. } => {
                    drop(reply.send(Err(error)));
                }
                Order::SetStartup { reply, .. } => drop(reply.send(Err(error))),
            }
        }
    }

    pub(super) async fn serve_with(&mut self, adopted: &mut Adopted, order: Order) {
        // A reply that nobody waits for any more is dropped: the look is on the board, and the outcome
        // of a write is settled by looking.
        match order {
            Order::Look { number, everything, reply } => {
                let result = self.look(adopted, number, everything).await;
                drop(reply.send(result));
            }
            Order::Refresh { number } => {
                if let Err(error) = self.look(adopted, number, true).await {
                    tracing::debug!(pdu = %self.settings.id, %error, "an outlet of {} was not refreshed", self.settings.id);
                }
            }
            Order::Startups { reply } => {
                let result = self.startups(adopted).await;
                drop(reply.send(result));
            }
            Order::SetStartup { wish, reply } => {
                let result = self.set_startup(adopted, &wish).await;
                drop(reply.send(result));
            }
            Order::SetCourse { wish, reply } => {
                let result = self.set_course(adopted, &wish).await;
                drop(reply.send(result));
            }
            Order::Write { number, relay, known, reply } => {
                let result = self.write(adopted, number, relay, &known).await;
                drop(reply.send(result));
            }
        }
    }

    async fn look(
        &mut self,
        adopted: &mut Adopted,
        number: u16,
        everything: bool,
    ) -> Result<Seen, OrderError> {
        let outlet = adopted.instance.layout.outlet(number).ok_or_else(|| missing(number))?;
        let began = self.services.clock.tick();
        let at = self.services.clock.stamp();
        let tier = adopted.instance.look(&adopted.profile.speech, outlet, everything);
        let mut memory = adopted.memory;
        let answers = super::read::sweep(&mut adopted.line, &tier.set, &mut memory).await?;
        let data = adopted.instance.decode(&tier, &answers, &mut self.trust);
        let mut view = PduView::clone(&self.place.view());
        let mut readings = view.readings.to_vec();
        for (slot, datum) in &data {
            readings[*slot] = Reading { datum: *datum, at };
            self.looked.insert(*slot as u16);
        }
        view.readings = readings.into();
        // One outlet was seen. How the PDU is as a whole, and how old the rest is, only a poll tells.
        let health = std::mem::replace(&mut view.health, Health::Online);
        let state = view.outlet_state(outlet);
        view.health = health;
        self.place.show(view);
        let takes = [Relay::On, Relay::Off].map(|relay| adopted.instance.verb(relay));
        let takes = takes.iter().flatten().map(|verb| verb.within_ms).max();
        Ok(Seen { state, at: began, takes: Span(takes.unwrap_or(0)) })
    }

    /// What a write rests on, looked at again now that its turn has come.
    async fn still_known(
        &mut self,
        adopted: &mut Adopted,
        number: u16,
        known: &Known,
    ) -> Result<u16, OrderError> {
        let layout = &adopted.instance.layout;
        let same = Arc::ptr_eq(layout, &known.layout)
            || layout.parts(Scope::Outlet) == known.layout.parts(Scope::Outlet);
        if !same {
            let why = "the PDU's outlets are not those they were a moment ago";
            return Err(OrderError::Doubtful(why.into()));
        }
        let outlet = layout.outlet(number).ok_or_else(|| missing(number))?;
        let view = self.place.view();
        let age = view.observed.map(|observed| self.services.clock.tick() - observed);
        let fresh = view.health == Health::Online && age.is_some_and(|age| age <= known.fresh);
        let state = if fresh {
            view.outlet_state(outlet)
        } else {
            self.look(adopted, number, false).await?.state
        };
        match state {
            Ok(Word::On | Word::Off) => Ok(outlet),
            state => Err(OrderError::Doubtful(format!("its state is {}", state_word(state)))),
        }
    }

    async fn write(
        &mut self,
        adopted: &mut Adopted,
        number: u16,
        relay: Relay,
        known: &Known,
    ) -> Result<Terms, OrderError> {
        let refuse = |why: String| OrderError::NotSwitchable(why);
        if self.updates.has_changed().unwrap_or(false) {
            self.update();
        }
        if let Some(reason) = self.read_only() {
            return Err(refuse(reason.to_string()));
        }
        let looked = self.still_known(adopted, number, known).await;
        // Nothing was sent: a PDU that does not answer now is doubtful, not commanded.
        let outlet = looked.map_err(|error| match error {
            OrderError::Link(error) => OrderError::Silent(format!("the PDU {error}")),
            error => error,
        })?;
        let part = adopted.instance.layout.parts(Scope::Outlet).get(usize::from(outlet));
        if !part.is_some_and(|part| part.switchable) {
            return Err(refuse("the PDU or its driver does not let it be switched".into()));
        }
        let commands = control::writes(&adopted.profile, &adopted.instance, outlet, relay)
            .map_err(|e| refuse(e.to_string()))?;
        let verb = adopted
            .instance
            .verb(relay)
            .ok_or_else(|| refuse("its driver has no such verb".into()))?;
        let mut terms = Terms {
            within: Span(verb.within_ms),
            every: Span(verb.poll_ms),
            acknowledged: false,
            also: verb.also.map(|(point, below)| (point.metric, below)),
            follows: self.settings.watts_follow,
            settle: Span(adopted.profile.pacing.settle_ms),
        };
        for command in commands {
            let gap = self.settings.manners.write_gap_ms;
            let gap = gap.unwrap_or(adopted.profile.pacing.write_gap_ms);
            self.wait_for_write_gap(Span(gap)).await;
            let ask = match command {
                Command::Ask(ask) => ask,
                Command::List(list) => {
                    let text = super::read::text(&mut adopted.line, &list.text).await;
                    let changed = text.and_then(|text| list.changed(&text));
                    list.ask(&changed.map_err(OrderError::Doubtful)?)
                }
            };
            let reply = adopted.line.exchange(&ask).await;
            self.last_write = Some(self.services.clock.tick());
            match reply {
                Ok(reply) => match super::read::taken(&ask, reply) {
                    Taken::Yes => {}
                    Taken::No(why) => return Err(OrderError::Refused(why)),
                    Taken::Perhaps(why) => {
                        tracing::debug!(pdu = %self.settings.id, %why, "a command to {} was answered oddly", self.settings.id);
                        return Ok(terms);
                    }
                },
                // Sent perhaps, and taken perhaps: only looking tells.
                Err(error) if error.may_have_arrived() => {
                    return Ok(terms);
                }
                Err(error) => return Err(error.into()),
            }
        }
        terms.acknowledged = true;
        Ok(terms)
    }

    pub(super) async fn wait_for_write_gap(&mut self, gap: Span) {
        if let Some(last) = self.last_write {
            let rest = (last + gap) - self.services.clock.tick();
            // A pause of nothing would still wait for the timer's next millisecond.
            if rest > Span(0) {
                tokio::time::sleep(rest.duration()).await;
            }
        }
    }
}

fn missing(number: u16) -> OrderError {
    OrderError::NotSwitchable(format!("the PDU has no outlet {number}"))
}
