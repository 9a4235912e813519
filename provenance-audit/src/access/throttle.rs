//! Slows guessing down: a client that has brought too many wrong tokens is not listened to for a while.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::api::Refusal;

/// Wrong tokens that a client may bring before it must wait.
const CREDIT: u32 = 20;
/// One more may be brought after each.
const PAUSE: Duration = Duration::from_secs(3);
/// Most clients that are told apart; the others share one account.
const MOST: usize = 1024;

#[derive(Default)]
pub(super) struct Throttle(HashMap<Client, Account>);

/// An address; of IPv6 the network that one customer has. `None`: nobody in particular.
type Client = Option<IpAddr>;

struct Account {
    spent: u32,
    /// When `spent` was right.
    at: Instant,
}

impl Throttle {
    /// # Errors
    /// 429, with the time to wait.
    pub(super) fn admit(&self, client: Option<IpAddr>) -> Result<(), Refusal> {
        let account = self.0.get(&self.name(client));
        match account.is_some_and(|account| account.now() >= CREDIT) {
            true => Err(
                Refusal::new(429, "too many wrong tokens came from here: wait some seconds")
                    .with("retry-after", PAUSE.as_secs().to_string()),
            ),
            false => Ok(()),
        }
    }

    pub(super) fn failed(&mut self, client: Option<IpAddr>) {
        if self.0.len() >= MOST {
            self.0.retain(|_, account| account.now() > 0);
        }
        let account = self.0.entry(self.name(client)).or_insert(Account {
            spent: 0,
            at: Instant::now(),
        });
        let spent = account.now();
        *account = Account {
            spent: spent.saturating_add(1),
            at: Instant::now(),
        };
    }

    /// Whose account it is: of a stranger, where the table is full, everybody's.
    fn name(&self, client: Option<IpAddr>) -> Client {
        let client = client.map(|address| match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(six) => match six.to_ipv4_mapped() {
                Some(four) => four.into(),
                None => {
                    let [a, b, c, d, ..] = six.segments();
                    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
                }
            },
        });
        match self.0.len() < MOST || self.0.contains_key(&client) {
            true => client,
            false => None,
        }
    }
}

impl Account {
    fn now(&self) -> u32 {
        let earned = self.at.elapsed().as_secs() / PAUSE.as_secs();
        self.spent.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_ends_and_others_go_on() {
        let mut throttle = Throttle::default();
        let at = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        for _ in 0..CREDIT {
            assert!(throttle.admit(at(1)).is_ok());
            throttle.failed(at(1));
        }
        assert!(throttle.admit(at(1)).is_err());
        assert!(throttle.admit(at(2)).is_ok());
    }

    #[test]
    fn many_addresses_share_one_account_and_little_memory() {
        let mut throttle = Throttle::default();
        let addresses = (0..100_000u32).map(|n| Some(IpAddr::from(n.to_be_bytes())));
        for address in addresses {
            throttle.failed(address);
        }
        assert!(throttle.0.len() <= MOST + 1);
        assert!(throttle.admit(Some(IpAddr::from([200, 0, 0, 1]))).is_err());
    }

    #[test]
    fn one_customer_of_ipv6_is_one_client() {
        let mut throttle = Throttle::default();
        let at = |last: u16| Some(IpAddr::from([0x2001, 0xdb8, 1, 2, 3, 4, 5, last]));
        for last in 0..u16::try_from(CREDIT).unwrap_or(0) {
            throttle.failed(at(last));
        }
        assert!(throttle.admit(at(999)).is_err());
    }
}
