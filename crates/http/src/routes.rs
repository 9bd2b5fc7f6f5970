//! The table of what can be asked, and the router that is made of it.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, any, on};

use crate::answers;
use crate::app::App;
use crate::params::header;
use crate::problem::{Kind, Problem};
use crate::queues::Queues;

/// Address of the client of a request: an extension of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Health,
    OpenApi,
    Queues,
    Queue,
    PutQueue,
    PatchQueue,
    RemoveQueue,
    Pause,
    Resume,
    Submit,
    Records,
    Kept,
    Consumer,
    PutConsumer,
    RemoveConsumer,
    Task,
    Cancel,
    Retry,
}

/// One thing that can be asked: a method of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
}

const fn route(method: &'static str, path: &'static str, operation: Operation) -> Route {
    Route { method, path, operation }
}

const QUEUE: &str = "/v1/queues/{queue}";
const CONSUMER: &str = "/v1/queues/{queue}/consumers/{consumer}";
const TASK: &str = "/v1/tasks/{id}";

/// All that can be asked, those of one path together. A `GET` is a `HEAD` too.
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "/healthz", Operation::Health),
    route("GET", "/v1/openapi.json", Operation::OpenApi),
    route("GET", "/v1/queues", Operation::Queues),
    route("GET", QUEUE, Operation::Queue),
    route("PUT", QUEUE, Operation::PutQueue),
    route("PATCH", QUEUE, Operation::PatchQueue),
    route("DELETE", QUEUE, Operation::RemoveQueue),
    route("POST", "/v1/queues/{queue}/pause", Operation::Pause),
    route("POST", "/v1/queues/{queue}/resume", Operation::Resume),
    route("POST", "/v1/queues/{queue}/tasks", Operation::Submit),
    route("GET", "/v1/queues/{queue}/records", Operation::Records),
    route("GET", "/v1/queues/{queue}/kept", Operation::Kept),
    route("GET", CONSUMER, Operation::Consumer),
    route("PUT", CONSUMER, Operation::PutConsumer),
    route("DELETE", CONSUMER, Operation::RemoveConsumer),
    route("GET", TASK, Operation::Task),
    route("DELETE", TASK, Operation::Cancel),
    route("POST", "/v1/tasks/{id}/retry", Operation::Retry),
];

impl Route {
    fn filter(&self) -> MethodFilter {
        match self.method {
            "GET" => MethodFilter::GET,
            "PUT" => MethodFilter::PUT,
            "POST" => MethodFilter::POST,
            "PATCH" => MethodFilter::PATCH,
            "DELETE" => MethodFilter::DELETE,
            other => unreachable!("{other} is in no route"),
        }
    }
}

/// Makes the router of the table. Requests are to have a [`Peer`], or they need a token.
pub(crate) fn router<Q: Queues>(app: &Arc<App<Q>>) -> Router {
    let router = ROUTES.chunk_by(|a, b| a.path == b.path).fold(Router::new(), |router, routes| {
        let methods = routes.iter().fold(MethodRouter::new(), |methods, route| {
            methods.merge(on(route.filter(), handler(app, route.operation)))
        });
        let allowed: Vec<&str> = routes.iter().map(|route| route.method).collect();
        let allowed = allowed.join(", ").replace("GET", "GET, HEAD");
        let other = refuse(app, move || Problem::method_not_allowed(&allowed));
        router.route(routes[0].path, methods.fallback(other))
    });
    let no_resource = || Problem::new(Kind::NoResource, "see /v1/openapi.json for those there are");
    router.fallback_service(any(refuse(app, no_resource)))
}

/// Values of a path's parameters, in their order.
pub(crate) type PathValues = Vec<String>;

fn handler<Q: Queues>(
    app: &Arc<App<Q>>,
    operation: Operation,
) -> impl Fn(Result<RawPathParams, RawPathParamsRejection>, Request) -> Answer + Clone + use<Q> {
    let app = Arc::clone(app);
    move |params, request| {
        let app = Arc::clone(&app);
        Box::pin(async move {
            let answer = async {
                check_head(&request)?;
                if operation != Operation::Health {
                    app.access.judge(peer(&request), request.headers())?;
                }
                let not_text = |_| Problem::bad_request("the path is not UTF-8");
                let params = params.map_err(not_text)?;
                let values = params.iter().map(|(_, value)| value.to_owned()).collect();
                answers::answer(&app, operation, values, request).await
            };
            finished(answer.await)
        })
    }
}

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Returns a handler that refuses, once it is known that the client may ask at all.
fn refuse<Q: Queues, P>(
    app: &Arc<App<Q>>,
    problem: P,
) -> impl Fn(Request) -> Answer + Clone + use<Q, P>
where
    P: Fn() -> Problem + Clone + Send + Sync + 'static,
{
    let app = Arc::clone(app);
    move |request: Request| {
        let judged =
            check_head(&request).and_then(|()| app.access.judge(peer(&request), request.headers()));
        let problem = judged.err().unwrap_or_else(&problem);
        Box::pin(std::future::ready(finished(Err(problem))))
    }
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// Returns a problem if it is not clear which host is meant (RFC 9112, section 3.2), or how long the body is:
/// a proxy on the way may have understood it in another way, and take the end of one request for another.
fn check_head(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        return Err(Problem::bad_request("Host is to be there once").closing());
    }
    let lengths = header(headers, CONTENT_LENGTH.as_str()).map_err(Problem::closing)?;
    let Some(coding) = header(headers, TRANSFER_ENCODING.as_str()).map_err(Problem::closing)?
    else {
        return Ok(());
    };
    match lengths.is_none() && coding.eq_ignore_ascii_case("chunked") {
        true => Ok(()),
        false => Err(Problem::bad_request("Transfer-Encoding is to be chunked").closing()),
    }
}

fn finished(answer: Result<Response<Body>, Problem>) -> Response {
    let mut response = answer.unwrap_or_else(Problem::into_response);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What a task wrote is never a page or a script, whatever it looks like.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet as Set;

    use super::*;
    use crate::answers::OPENAPI;

    #[test]
    fn the_table_and_the_file_have_the_same_routes_and_parameters() {
        let file: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let mut documented = Set::new();
        for (path, methods) in file["paths"].as_object().unwrap() {
            let methods = methods.as_object().unwrap();
            let parameters = methods.get("parameters").and_then(|it| it.as_array());
            let names = parameters.into_iter().flatten().map(|parameter| {
                let reference = parameter["$ref"].as_str().unwrap();
                let parameter = file.pointer(reference.strip_prefix('#').unwrap()).unwrap();
                assert_eq!(parameter["in"], "path", "{path}");
                parameter["name"].as_str().unwrap()
            });
            let of_path =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            assert!(names.eq(of_path), "{path}");
            let methods = methods.keys().filter(|name| *name != "parameters");
            documented.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
        }
        let of_table = |route: &Route| (route.method.to_owned(), route.path.to_owned());
        assert_eq!(ROUTES.iter().map(of_table).collect::<Set<_>>(), documented);
        assert_eq!(ROUTES.len(), documented.len());
        // The router joins those that stand together.
        let paths: Vec<_> = ROUTES.chunk_by(|a, b| a.path == b.path).map(|it| it[0].path).collect();
        assert_eq!(paths.iter().collect::<Set<_>>().len(), paths.len());
    }
}
