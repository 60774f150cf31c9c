//! The route table: method, path, what the client must be allowed to, handler. One place decides who may
//! call what.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{ALLOW, HeaderMap, HeaderValue};
use hyper::{Method, Response};

use crate::access::{Identity, Permission};
use crate::wire::problem::Problem;

use super::context::{Answer, Body, Context, State};
use super::{
    audit, compat, energy, events, groups, hosts, limits, locks, metrics, openapi, page, pdus,
    plans, power, problem, remote_read, series, status, store,
};

type Handler = fn(Context) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One route.
struct Route {
    method: Method,
    permission: Permission,
    handler: Handler,
}

/// All routes.
pub struct Routes {
    router: matchit::Router<Vec<Route>>,
}

macro_rules! handler {
    ($function:path) => {
        |context| Box::pin($function(context))
    };
}

impl Routes {
    /// The table.
    pub fn new() -> Self {
        use Permission::{Administer, Approve, Read, Switch};
        let mut routes = Builder::default();
        routes.get("/", Read, handler!(page::page));
        routes.get("/openapi.json", Read, handler!(openapi::document));
        routes.get("/metrics", Read, handler!(metrics::metrics));
        routes.get("/v1/status", Read, handler!(status::status));
        routes.get("/v1/version", Read, handler!(status::version));
        routes.get("/v1/events", Read, handler!(events::events));
        routes.get("/v1/series", Read, handler!(series::series));
        routes.get("/v1/energy", Read, handler!(energy::energy));
        routes.post("/v1/prometheus/read", Read, handler!(remote_read::read));
        routes.get("/v1/store", Administer, handler!(store::copy_of));
        routes.get("/v1/pdus", Read, handler!(pdus::list));
        routes.get("/v1/pdus/{pdu}", Read, handler!(pdus::show));
        routes.get("/v1/pdus/{pdu}/outlets", Read, handler!(pdus::outlets));
        routes.get("/v1/pdus/{pdu}/outlets/{n}", Read, handler!(pdus::outlet));
        routes.post("/v1/pdus/{pdu}/outlets/{n}/power", Switch, handler!(power::outlet));
        let lock = "/v1/pdus/{pdu}/outlets/{n}/lock";
        routes.add(Method::PUT, lock, Administer, handler!(locks::put));
        routes.add(Method::DELETE, lock, Administer, handler!(locks::delete));
        routes.get("/v1/hosts", Read, handler!(hosts::list));
        routes.get("/v1/hosts/{host}", Read, handler!(hosts::show));
        routes.post("/v1/hosts/{host}/power", Switch, handler!(power::host));
        routes.get("/v1/groups", Read, handler!(groups::list));
        routes.get("/v1/groups/{group}", Read, handler!(groups::show));
        routes.post("/v1/groups/{group}/power", Switch, handler!(power::group));
        routes.get("/v1/audit", Read, handler!(audit::list));
        routes.get("/v1/limits", Read, handler!(limits::list));
        routes.get("/v1/plans", Read, handler!(plans::list));
        routes.get("/v1/plans/{plan}", Read, handler!(plans::show));
        routes.post("/v1/plans", Switch, handler!(plans::create));
        routes.post("/v1/plans/{plan}/run", Switch, handler!(plans::run));
        routes.post("/v1/plans/{plan}/approve", Approve, handler!(plans::approve));
        routes.post("/v1/plans/{plan}/lift", Administer, handler!(plans::lift));
        routes.post("/v1/plans/{plan}/cancel", Switch, handler!(plans::cancel));
        routes.get("/api/{pdu}/retdata", Read, handler!(compat::retdata));
        for verb in ["power_on", "power_off", "power_cycle"] {
            let path = format!("/api/{{pdu}}/{{outlet}}/{{n}}/{verb}");
            let handler: Handler = match verb {
                "power_on" => handler!(compat::power_on),
                "power_off" => handler!(compat::power_off),
                _ => handler!(compat::power_cycle),
            };
            routes.post(&path, Switch, handler);
            routes.add(Method::PATCH, &path, Switch, handler);
        }
        routes.build()
    }

    /// Whether a client asks for something to be switched, and may.
    pub fn may_switch(&self, state: &State, who: &Identity, method: &Method, path: &str) -> bool {
        let Ok(found) = self.router.at(path) else { return false };
        let route = found.value.iter().find(|route| route.method == *method);
        let switches = route.is_some_and(|route| matches!(route.permission, Permission::Switch));
        switches && state.site.borrow().policy.allow(who, Permission::Switch).is_ok()
    }

    /// Answers a request: finds the route, asks whether the client may, calls the handler.
    #[allow(clippy::too_many_arguments)] // the parts of one request, taken apart once
    pub async fn answer(
        &self,
        state: Arc<State>,
        who: Identity,
        method: Method,
        path: &str,
        query: Option<&str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response<Body> {
        // HEAD is GET without the body; the server leaves it out.
        let method = if method == Method::HEAD { Method::GET } else { method };
        let Ok(found) = self.router.at(path) else {
            return problem::response(&problem::not_found("such path"));
        };
        let Some(route) = found.value.iter().find(|route| route.method == method) else {
            return method_not_allowed(&method, found.value);
        };
        let policy = state.site.borrow().policy.clone();
        // Of those who only read nobody needs to know.
        let asks = !matches!(route.permission, Permission::Read);
        let told = asks.then(|| (state.clone(), who.clone(), format!("{method} {path}")));
        let refuses = |problem: &Problem| {
            if let Some((state, who, asked)) = &told {
                state.switching.refuses(who, asked, &problem.detail);
            }
        };
        if let Err(denied) = policy.allow(&who, route.permission) {
            let problem = crate::switching::Refusal::from(denied).into();
            refuses(&problem);
            return problem::response(&problem);
        }
        let params: BTreeMap<String, String> =
            found.params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = match decode(query.unwrap_or("")) {
            Ok(query) => query,
            Err(problem) => return problem::response(&problem),
        };
        let context = Context { state, who, params, query, headers, body };
        (route.handler)(context).await.unwrap_or_else(|problem| {
            // A plan that is not made as it does not fit changes nothing.
            let is_told = problem.status == 403 || problem.status == 409 && path != "/v1/plans";
            if is_told {
                refuses(&problem);
            }
            problem::response(&problem)
        })
    }
}

fn method_not_allowed(method: &Method, routes: &[Route]) -> Response<Body> {
    let allowed: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
    let detail = format!("{method} is not known here");
    let problem =
        Problem::new(405, "Method not allowed", detail, format!("use {}", allowed.join(" or ")));
    let mut response = problem::response(&problem);
    if let Ok(value) = HeaderValue::from_str(&allowed.join(", ")) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

/// A query string, decoded (URL standard, application/x-www-form-urlencoded).
fn decode(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let wrong = || problem::bad("the query does not decode", "escape it as %XX with UTF-8");
    let part = |text: &str| -> Result<String, Problem> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let hex = [rest.next().ok_or_else(wrong)?, rest.next().ok_or_else(wrong)?];
                    let hex = std::str::from_utf8(&hex).map_err(|_| wrong())?;
                    // Rust reads "+f" as a number too.
                    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                        return Err(wrong());
                    }
                    u8::from_str_radix(hex, 16).map_err(|_| wrong())?
                }
                byte => byte,
            });
        }
        String::from_utf8(bytes).map_err(|_| wrong())
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((part(key)?, part(value)?))
        })
        .collect()
}

#[derive(Default)]
struct Builder {
    routes: Vec<(String, Vec<Route>)>,
}

impl Builder {
    fn get(&mut self, path: &str, permission: Permission, handler: Handler) {
        self.add(Method::GET, path, permission, handler);
    }

    fn post(&mut self, path: &str, permission: Permission, handler: Handler) {
        self.add(Method::POST, path, permission, handler);
    }

    fn add(&mut self, method: Method, path: &str, permission: Permission, handler: Handler) {
        let route = Route { method, permission, handler };
        match self.routes.iter_mut().find(|(known, _)| known == path) {
            Some((_, routes)) => routes.push(route),
            None => self.routes.push((path.to_owned(), vec![route])),
        }
    }

    fn build(self) -> Routes {
        let mut router = matchit::Router::new();
        for (path, routes) in self.routes {
            if let Err(error) = router.insert(&path, routes) {
                unreachable!("the table is fixed, and {path} is wrong in it: {error}");
            }
        }
        Routes { router }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_together_and_only_switching_needs_more_than_reading() {
        let routes = Routes::new();
        let at = |path: &str| routes.router.at(path).unwrap().value;
        for (path, method, permission) in [
            ("/v1/pdus/pdu-a", Method::GET, Permission::Read),
            ("/v1/pdus/pdu-a/outlets/7/power", Method::POST, Permission::Switch),
            ("/v1/pdus/pdu-a/outlets/7/lock", Method::PUT, Permission::Administer),
            ("/v1/pdus/pdu-a/outlets/7/lock", Method::DELETE, Permission::Administer),
            ("/v1/hosts/web/power", Method::POST, Permission::Switch),
            ("/api/pdu-a/outletA/1/power_off", Method::PATCH, Permission::Switch),
            ("/api/pdu-a/outletA/1/power_cycle", Method::POST, Permission::Switch),
            ("/api/pdu-a/retdata", Method::GET, Permission::Read),
        ] {
            let route = at(path).iter().find(|route| route.method == method).unwrap();
            assert_eq!(route.permission, permission, "{path}");
        }
        assert!(routes.router.at("/v1/pdus/pdu-a/outlets/7/power/x").is_err());
    }

    #[test]
    fn queries_are_decoded_or_refused() {
        assert_eq!(
            decode("a=b%20c&d=%2F+&e").unwrap(),
            [("a".into(), "b c".into()), ("d".into(), "/ ".into()), ("e".into(), String::new())]
        );
        for query in ["a=%", "a=%2", "a=%zz", "a=%ff"] {
            assert!(decode(query).is_err(), "{query}");
        }
    }
}
