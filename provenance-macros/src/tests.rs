//! What the attributes become, as snapshots to read: `cargo insta review` after a change that
//! is meant. Everything else is tested from the outside, in `tests/`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proc_macro2::TokenStream;
use quote::quote;

use crate::ctxt::{Ctxt, funnel};
use crate::expand;

type Attribute = fn(&Ctxt, TokenStream, TokenStream) -> TokenStream;

fn pretty(tokens: TokenStream) -> String {
    prettyplease::unparse(&syn::parse2(tokens).expect("the expansion is Rust"))
}

fn derive(item: TokenStream) -> String {
    pretty(funnel(|cx| expand::tracked::derive(cx, item)))
}

fn function(attribute: Attribute, args: TokenStream, item: TokenStream) -> String {
    pretty(funnel(|cx| attribute(cx, args, item)))
}

fn method(attribute: Attribute, args: TokenStream, item: TokenStream) -> String {
    let method = funnel(|cx| attribute(cx, args, item));
    pretty(quote!(impl Service { #method }))
}

#[test]
fn tracked_struct() {
    insta::assert_snapshot!(derive(quote! {
        #[tracked(owner(email, id as "user"), purpose = "contract", name = "crm.Person")]
        struct Signup<'a, T> {
            id: i64,
            #[tracked("contact.email", description = "Where \"we\" write", kind = "email", pii = true, secret = false)]
            email: &'a str,
            #[tracked("x.extra")]
            #[diesel(column_name = more)]
            extra: Vec<T>,
            nested: Address,
            #[tracked(skip)]
            cache: Cache,
        }
    }));
}

#[test]
fn tracked_enum() {
    insta::assert_snapshot!(derive(quote! {
        #[tracked(owner(email), crate = crate::vendored::provenance)]
        enum Contact<T> {
            Mail { #[tracked("contact.email")] email: String, #[tracked(skip)] cache: Cache },
            Phone(#[tracked("contact.phone_number")] String, T),
            Nothing,
        }
    }));
}

#[test]
fn tracked_mistakes() {
    insta::assert_snapshot!(derive(quote! {
        struct Signup<T: Clone> {
            #[tracked]
            email: T,
        }
    }));
}

#[test]
fn input_async() {
    insta::assert_snapshot!(function(
        expand::input::attribute,
        quote!(purpose = "signup", basis = "contract"),
        quote! {
            /// Docs stay.
            pub(crate) async fn signup(
                State(app): State<App>,
                Form(form): Form<Signup>,
                mut note: Option<String>,
                #[cfg(feature = "x")] extra: &'static str,
            ) -> Result<impl IntoResponse, Error> {
                app.store(form)?;
                Ok(note.take())
            }
        }
    ));
}

#[test]
fn input_sync_method() {
    insta::assert_snapshot!(method(
        expand::input::attribute,
        quote!(name = "Service::find"),
        quote! {
            fn find<'s>(&'s self, (key, _): (&str, usize)) -> Option<&'s str> {
                #![allow(unused)]
                return self.map.get(key).map(String::as_str);
            }
        }
    ));
}

#[test]
fn another_macro_sees_the_patterns_as_written() {
    let item = || {
        quote! {
            /// Signs up.
            #[must_use]
            #[tracing::instrument(skip(app))]
            async fn signup(State(app): State<App>, Form(form): Form<Signup>) -> String {
                form.email
            }
        }
    };
    let moved = |attribute: Attribute, args: TokenStream| function(attribute, args, item());
    insta::assert_snapshot!(
        [
            moved(expand::input::attribute, quote!(purpose = "signup")),
            moved(
                expand::derived::attribute,
                quote!("score.credit", crate = crate::evidence)
            ),
            moved(expand::egress::attribute, quote!()),
        ]
        .join("\n")
    );
    // Once there, it stays: an attribute that nobody takes away must not send it round for ever.
    let settled = moved(expand::input::attribute, quote!(__last, purpose = "signup"));
    assert!(settled.contains("input::Call::begin"), "{settled}");
}

#[test]
fn input_boxed_future() {
    insta::assert_snapshot!(method(
        expand::input::attribute,
        quote!(),
        quote! {
            fn find<'a>(&'a self, key: String) -> Pin<Box<dyn Future<Output = usize> + Send + 'a>> {
                Box::pin(async move { key.len() })
            }
        }
    ));
}

#[test]
fn input_on_the_wrong_item() {
    insta::assert_snapshot!(function(
        expand::input::attribute,
        quote!(),
        quote!(
            struct Form;
        )
    ));
}

#[test]
fn derived_sync() {
    insta::assert_snapshot!(function(
        expand::derived::attribute,
        quote!("score.credit", description = "Credit score", kind = "number"),
        quote! {
            fn score(birthday: &str, Income(income): Income) -> Result<u32, Error> {
                Ok(age(birthday)? + income)
            }
        }
    ));
}

#[test]
fn derived_async() {
    insta::assert_snapshot!(method(
        expand::derived::attribute,
        quote!("score.credit"),
        quote! {
            async fn score(&self, income: f64) -> impl Display {
                self.base + income
            }
        }
    ));
}

#[cfg(feature = "diesel")]
#[test]
fn model_attribute() {
    insta::assert_snapshot!(function(
        expand::model::attribute,
        quote!(owner(id)),
        quote! {
            #[derive(Debug, Insertable)]
            #[diesel(table_name = users)]
            struct NewUser<'a> {
                id: i32,
                #[tracked("contact.email")]
                email: &'a str,
            }
        }
    ));
}

#[cfg(feature = "diesel")]
#[test]
fn model_derive() {
    let expanded = funnel(|cx| {
        expand::model::derive(
            cx,
            quote! {
                #[tracked_model_args(args(owner(id)))]
                #[tracked_model_args(hook(Insertable))]
                #[diesel(table_name = users)]
                struct NewUser<'a> {
                    id: i32,
                    #[tracked("contact.email")]
                    email: &'a str,
                }
            },
        )
    });
    insta::assert_snapshot!(pretty(expanded));
}

#[test]
fn egress_sync() {
    insta::assert_snapshot!(function(
        expand::egress::attribute,
        quote!(
            recipient = "mailchimp",
            purpose = "newsletter",
            allow("contact.email", "personal.name")
        ),
        quote! {
            fn subscribe(agent: &ureq::Agent, #[payload] s: &Subscriber<'_>) -> Result<(), ureq::Error> {
                agent.post(URL).query("v", "3").send_json(s)?;
                let request = agent.get(URL);
                request.call()?;
                agent.run(Request::get(URL).body(())?)?;
                self.tx.send(Event::Sent)?;
                spawn(move || ureq::get(URL).call());
                urls.iter().map(|url| ureq::get(url).call().is_ok()).count();
                Ok(())
            }
        }
    ));
}

#[test]
fn egress_left_alone() {
    insta::assert_snapshot!(function(
        expand::egress::attribute,
        quote!(recipient = "queue"),
        quote! {
            async fn publish(queue: Queue) -> usize {
                queue.send(&message()).await;
                timeout(SECOND, queue.send(&message())).await;
                queue.send::<Message>(message());
                queue.call(|| 1);
                self.queues[0].send(message());
                make().queue.send(message());
                queue!().send(message());
                Queue::send(&queue, message());
                assert!(queue.call());
                fn nested(queue: Queue) {
                    queue.call();
                }
                0
            }
        }
    ));
}

#[test]
fn egress_payload_of_the_whole() {
    insta::assert_snapshot!(method(
        expand::egress::attribute,
        quote!(recipient = "smtp", name = "Service::mail"),
        quote! {
            async fn mail(&self, #[payload] Mail { to, .. }: Mail) -> Result<(), Error> {
                self.smtp.deliver(to).await
            }
        }
    ));
}

#[test]
#[cfg(feature = "reqwest")]
fn egress_async() {
    insta::assert_snapshot!(method(
        expand::egress::attribute,
        quote!(recipient = "mailchimp"),
        quote! {
            async fn subscribe(&self, request: RequestBuilder) -> reqwest::Result<Response> {
                self.client.post(URL).json(&1).send().await?;
                self.client.execute(self.client.get(URL).build()?).await?;
                let later = self.client.get(URL).send();
                spawn(async move { client.get(URL).send().await });
                other.execute(&mut connection).await;
                timeout(SECOND, other.execute(message().borrowed())).await;
                let kept = kept.send();
                join(kept, later).await;
                request.send().await
            }
        }
    ));
}
