//! Where a device seeks its gateway: where it is configured, or where a gateway that goes away has
//! sent it.
//!
//! An alternate is sought first, once; while neither answers they take turns. A device that has
//! arrived anywhere begins its next search at its own gateway, and one that has arrived there forgets
//! the alternate. Nothing but the address changes: the alternate must show the same certificate.

use crate::limits;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Course {
    alternate: Option<String>,
    elsewhere: bool,
}

impl Course {
    /// Where the next attempt goes: an alternate, or (`None`) where it is configured.
    pub(super) fn next(&self) -> Option<&str> {
        self.alternate.as_deref().filter(|_| self.elsewhere)
    }

    /// A gateway goes away and says where to go instead, or nothing of that. What is no address is
    /// as if nothing had been said.
    pub(super) fn sent_to(&mut self, alternate: Option<String>) {
        if let Some(address) = alternate.filter(|text| is_address(text)) {
            self.alternate = Some(address);
            self.elsewhere = true;
        }
    }

    /// An attempt failed: the next goes to the other place.
    pub(super) fn failed(&mut self) {
        self.elsewhere = !self.elsewhere && self.alternate.is_some();
    }

    /// A session was had, at an alternate or at home.
    pub(super) fn arrived(&mut self, at_alternate: bool) {
        self.elsewhere = false;
        if !at_alternate {
            self.alternate = None;
        }
    }
}

/// Whether a text is `host:port`, in form.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]%".contains(&byte);
    text.len() <= limits::ALTERNATE_BYTES_MAX
        && !host.is_empty()
        && host.bytes().all(plain)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alternate_and_home_take_turns_until_one_answers() {
        let mut course = Course::default();
        assert_eq!(course.next(), None);
        course.failed();
        assert_eq!(course.next(), None);
        course.sent_to(Some("gw2:4443".into()));
        assert_eq!(course.next(), Some("gw2:4443"));
        course.failed();
        assert_eq!(course.next(), None);
        course.failed();
        assert_eq!(course.next(), Some("gw2:4443"));
        course.arrived(true);
        assert_eq!(course.next(), None, "home is sought first");
        course.failed();
        assert_eq!(course.next(), Some("gw2:4443"));
        course.failed();
        course.arrived(false);
        course.failed();
        assert_eq!(course.next(), None, "it is forgotten at home");
    }

    #[test]
    fn what_is_no_address_is_as_if_nothing_had_been_said() {
        let long = format!("{}:4443", "a".repeat(limits::ALTERNATE_BYTES_MAX));
        for bad in [
            "",
            "gw2",
            "gw2:",
            ":4443",
            "gw2:0",
            "gw2:65536",
            "g w:1",
            "http://gw2:1",
            &long,
        ] {
            let mut course = Course::default();
            course.sent_to(Some(bad.to_owned()));
            assert_eq!(course.next(), None, "{bad:?}");
        }
        for good in [
            "gw2:4443",
            "192.0.2.1:1",
            "[2001:db8::1]:65535",
            "gw-2.example.org:443",
        ] {
            let mut course = Course::default();
            course.sent_to(Some(good.to_owned()));
            assert_eq!(course.next(), Some(good));
        }
    }
}
