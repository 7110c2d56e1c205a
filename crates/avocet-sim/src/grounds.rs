//! Why a session may be sent a message: as it was published, as a retained one that a new
//! subscription asked for, or as a member of a group; and what the copy then looks like.

use avocet_codec::{QoS, RetainHandling};

use crate::model::{MessageInfo, Model, Sent, Sub};
use crate::wire::PublishPkt;

impl Sub {
    /// Whether it asks for what is retained [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11].
    pub(crate) fn asks(&self) -> bool {
        !self.shared
            && match self.options.retain_handling {
                RetainHandling::SendAtSubscribe => true,
                RetainHandling::SendIfNew => self.new,
                RetainHandling::DoNotSend => false,
            }
    }

    /// Whether it keeps a message from its own publisher [MQTT5-3.8.3-3].
    pub(crate) fn hides(&self, model: &Model, message: &MessageInfo) -> bool {
        self.options.no_local && message.publisher == model.sessions[self.session].client
    }

    /// Whether a message may have met it on its way.
    fn may_meet(&self, model: &Model, message: &MessageInfo) -> bool {
        // A group learns of other options some time before SUBACK.
        let ended = match self.replaced_by.filter(|_| self.shared) {
            Some(next) => model.subs[next].answered,
            None => self.ended,
        };
        // A message that is acknowledged has met all that it will ever meet. What a group has and
        // cannot give goes to members that come later.
        let in_time = self.shared || message.acked.is_none_or(|acked| self.began < acked);
        in_time
            && message
                .read
                .is_some_and(|read| ended.is_none_or(|it| read < it))
    }

    /// Whether a message must have met it, with the options that it has.
    fn must_meet(&self, model: &Model, message: &MessageInfo) -> bool {
        let (Some(read), 1) = (message.read, message.reads) else {
            return false;
        };
        // A crash may take back what was not acknowledged.
        if model.crashes > 0 {
            return false;
        }
        let stays = match (self.ended, message.acked) {
            (None, _) => true,
            (Some(ended), acked) => acked.is_some_and(|acked| acked < ended),
        };
        stays && self.answered.is_some_and(|answered| answered < read)
    }

    /// Whether it may have found a message that was retained. What is retained is read page by page
    /// as the client takes it: it may be newer than SUBACK, and come when another subscription has
    /// taken the place.
    pub(crate) fn may_find(&self, model: &Model, message: &MessageInfo) -> bool {
        let ended = self.line(model).last().and_then(|last| last.ended);
        let read = message.read.filter(|_| message.retain && self.asks());
        read.is_some_and(|read| ended.is_none_or(|ended| read < ended))
    }

    /// It and those that took its place, whose options count for what comes later.
    fn line<'a>(&'a self, model: &'a Model) -> impl Iterator<Item = &'a Self> {
        let next = |sub: &&'a Self| sub.replaced_by.map(|next| &model.subs[next]);
        std::iter::successors(Some(self), next)
    }
}

/// The subscriptions of a session that may have brought it a copy.
pub(crate) struct Grounds<'a> {
    message: &'a MessageInfo,
    /// Those that it may have met as it was published.
    pub(crate) live: Vec<&'a Sub>,
    /// Those of these that it must have met.
    pub(crate) certain: Vec<&'a Sub>,
    /// Those that may have found it retained, and what took their places.
    pub(crate) retained: Vec<&'a Sub>,
    /// Those of groups.
    pub(crate) shared: Vec<&'a Sub>,
}

impl Model {
    pub(crate) fn grounds<'a>(&'a self, sent: &Sent<'a>) -> Grounds<'a> {
        let message = sent.message;
        let all = self.matching(sent.session, message);
        let (shared, own): (Vec<&Sub>, Vec<&Sub>) = all.partition(|sub| sub.shared);
        let met = |sub: &&'a Sub| sub.may_meet(self, message);
        let shared = shared.into_iter().filter(met).collect();
        let found = own.iter().filter(|sub| sub.may_find(self, message));
        let retained = found.flat_map(|sub| sub.line(self)).collect();
        let live: Vec<&Sub> = own.into_iter().filter(met).collect();
        let certain = live.iter().copied();
        Grounds {
            message,
            certain: certain.filter(|sub| sub.must_meet(self, message)).collect(),
            live,
            retained,
            shared,
        }
    }
}

impl<'a> Grounds<'a> {
    /// Without those that keep it from its own publisher.
    pub(crate) fn visible(mut self, model: &Model) -> Self {
        let message = self.message;
        for subs in [
            &mut self.live,
            &mut self.certain,
            &mut self.retained,
            &mut self.shared,
        ] {
            subs.retain(|sub| !sub.hides(model, message));
        }
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.retained.is_empty() && self.shared.is_empty()
    }

    /// What is wrong with a copy, whatever brought it.
    pub(crate) fn judge(&self, publish: &PublishPkt) -> Result<(), String> {
        let as_retained = publish.retain && self.one_of(&self.retained, publish, |_| true);
        let flag = |sub: &Sub| self.message.retain && sub.options.retain_as_published;
        let as_shared = self.one_of(&self.shared, publish, |sub| flag(sub) == publish.retain);
        if as_retained || as_shared {
            return Ok(());
        }
        if self.live.is_empty() {
            return Err("is not what a subscription brings".into());
        }
        self.judge_live(publish)
    }

    /// Whether one subscription alone may have brought a copy.
    fn one_of(&self, subs: &[&'a Sub], publish: &PublishPkt, fits: impl Fn(&Sub) -> bool) -> bool {
        subs.iter().any(|sub| {
            sub.id.as_slice() == publish.subscription_ids
                && publish.qos <= self.qos(sub)
                && fits(sub)
        })
    }

    fn qos(&self, sub: &Sub) -> QoS {
        sub.options.maximum_qos.min(self.message.qos)
    }

    /// One copy for all subscriptions: the highest QoS [MQTT5-3.3.4-2], RETAIN if one of them wants
    /// it as published [MQTT5-3.3.1-12] [MQTT5-3.3.1-13], all Subscription Identifiers
    /// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4].
    fn judge_live(&self, publish: &PublishPkt) -> Result<(), String> {
        let qos = |subs: &[&'a Sub]| subs.iter().map(|sub| self.qos(sub)).max();
        if Some(publish.qos) < qos(&self.certain) || Some(publish.qos) > qos(&self.live) {
            return Err("has not the highest QoS that was granted".into());
        }
        let flag = |sub: &&Sub| self.message.retain && sub.options.retain_as_published;
        let may = self.live.iter().any(flag);
        let must = self.certain.iter().any(flag);
        if publish.retain && !may || !publish.retain && must {
            return Err("has not the RETAIN flag that was asked for".into());
        }
        let count = |subs: &[&Sub], id| subs.iter().filter(|sub| sub.id == Some(id)).count();
        let mut ids: Vec<u32> = self.live.iter().filter_map(|sub| sub.id).collect();
        ids.extend(&publish.subscription_ids);
        for id in ids {
            let has = publish.subscription_ids.iter().filter(|it| **it == id);
            let has = has.count();
            let (least, most) = (count(&self.certain, id), count(&self.live, id));
            if has < least || has > most {
                return Err(format!("has Subscription Identifier {id} {has} times"));
            }
        }
        Ok(())
    }
}
