//! User tokens: minted, listed, revoked, and told from each other on every request.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::access::{Principal, Scope};
use crate::auth::TokenDirectory;
use crate::clock::Timestamp;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::govern::Records;
use crate::meta::MetadataStore;
use crate::name::Tenant;
use crate::secret::Secret;
use crate::token::{NewUserToken, TokenId, TokenPrincipal, UserToken, UserTokenRecord};

/// The user tokens of one tenant.
///
/// Requests are answered from memory, by the SHA-256 of what was presented: a token that is not
/// known costs one hash and leaves no trace. Records stay after a revocation, because the log names
/// them.
#[derive(Debug)]
pub struct Tokens {
    records: Records,
    /// The tokens that may be good, by fingerprint.
    live: RwLock<HashMap<Digest, Arc<Live>>>,
    /// Those that were revoked, for what began before.
    revoked: RwLock<HashSet<TokenId>>,
    /// Changes are made one at a time, so that memory follows the records in their order.
    turn: futures_util::lock::Mutex<()>,
}

#[derive(Debug)]
struct Live {
    id: TokenId,
    principal: Principal,
    name: TokenPrincipal,
    expires: Option<Timestamp>,
    /// Unix seconds of the last use; 0 for none.
    used: AtomicI64,
}

impl Live {
    fn of(record: &UserTokenRecord) -> Live {
        Live {
            id: record.id,
            principal: record.to_principal(),
            name: record.principal.clone(),
            expires: record.expires,
            used: AtomicI64::new(record.last_used.map_or(0, Timestamp::as_unix)),
        }
    }
}

impl Tokens {
    /// Reads the tokens of a tenant.
    ///
    /// # Errors
    /// What the store says; [`ErrorKind::Corrupted`] for a record that cannot be read.
    pub async fn open(store: Arc<dyn MetadataStore>, tenant: &Tenant) -> Result<Tokens> {
        let tokens = Tokens {
            records: Records::new(store, tenant, "token"),
            live: RwLock::default(),
            revoked: RwLock::default(),
            turn: futures_util::lock::Mutex::new(()),
        };
        tokens.refresh().await?;
        Ok(tokens)
    }

    /// Reads the records again, for a store that other nodes write to as well.
    pub async fn refresh(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        let records: Vec<(String, UserTokenRecord)> = self.records.all().await?;
        let (alive, gone): (Vec<_>, Vec<_>) =
            records.iter().map(|(_, record)| record).partition(|record| record.revoked.is_none());
        let gone = gone.into_iter().map(|record| record.id);
        self.revoked.write().unwrap_or_else(PoisonError::into_inner).extend(gone);
        let fresh: HashMap<Digest, Arc<Live>> =
            alive.into_iter().map(|record| (record.fingerprint, Arc::new(Live::of(record)))).collect();
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *live, fresh);
        for (fingerprint, known) in live.iter() {
            if let Some(old) = old.get(fingerprint) {
                known.used.fetch_max(old.used.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Makes a token for `by`, whose own credentials are narrowed to `within`; its secret is
    /// returned this once.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] if it would reach further than the credentials it is made with;
    /// [`ErrorKind::Invalid`] as [`UserTokenRecord::mint`] says.
    pub async fn mint(
        &self,
        new: NewUserToken,
        by: &Principal,
        now: Timestamp,
    ) -> Result<(UserTokenRecord, Secret)> {
        check_within(new.scopes.as_deref(), by.scopes())?;
        let (record, token) = UserTokenRecord::mint(new, by.to_string(), now)?;
        let _turn = self.turn.lock().await;
        self.records.write(&record.id.to_string(), &record).await?;
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.insert(record.fingerprint, Arc::new(Live::of(&record)));
        Ok((record, token.secret().clone()))
    }

    /// Every token there is or was, by id.
    pub async fn list(&self) -> Result<Vec<UserTokenRecord>> {
        let records: Vec<(String, UserTokenRecord)> = self.records.all().await?;
        Ok(records.into_iter().map(|(_, record)| self.with_use(record)).collect())
    }

    /// One token.
    pub async fn token(&self, id: TokenId) -> Result<Option<UserTokenRecord>> {
        let found = self.records.read::<UserTokenRecord>(&id.to_string()).await?;
        Ok(found.map(|(record, _)| self.with_use(record)))
    }

    /// Revokes a token, whatever its life: the next request with it is refused. `None` if there is
    /// none; the first revocation stands.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a reason that is empty; what the store says. Then the token opens
    /// nothing on this node until [`refresh`](Tokens::refresh), but may elsewhere: try again.
    pub async fn revoke(
        &self,
        id: TokenId,
        by: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Option<UserTokenRecord>> {
        let _turn = self.turn.lock().await;
        self.records
            .change(&id.to_string(), |old: Option<UserTokenRecord>| {
                let Some(old) = old else { return Ok((None, None)) };
                let revoked = old.clone().revoke(by, reason, now)?;
                // Before it is written: whoever asked may go away while it is.
                self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&old.fingerprint);
                self.revoked.write().unwrap_or_else(PoisonError::into_inner).insert(old.id);
                Ok(((revoked != old).then(|| revoked.clone()), Some(revoked)))
            })
            .await
    }

    /// Whether the token of this id, as [`Principal::credential`] tells it, was revoked: for transfers
    /// that run, now and then. Time alone ends none of them.
    pub fn is_revoked(&self, credential: &str) -> bool {
        let Ok(id) = credential.parse::<TokenId>() else { return false };
        self.revoked.read().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Who presents `token`. `user` is the user name beside it, if the request has one: it must be
    /// empty, the principal's name or the token's id.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] if it is not good here.
    pub fn authenticate(&self, user: Option<&str>, token: &Secret, now: Timestamp) -> Result<Principal> {
        let known = UserToken::parse(token).ok().and_then(|token| {
            let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
            live.get(&token.fingerprint()).cloned()
        });
        let known = known.filter(|known| known.expires.is_none_or(|expires| now < expires));
        let known = known.filter(|known| user.is_none_or(|user| known.answers_to(user)));
        let known = known.ok_or_else(crate::token::not_valid)?;
        known.used.fetch_max(now.as_unix(), Ordering::Relaxed);
        Ok(known.principal.clone())
    }

    /// Writes down when tokens were last used, as far as a record is older than `since`; forgets
    /// those that have expired. For upkeep, now and then.
    pub async fn settle(&self, since: Timestamp, now: Timestamp) -> Result<()> {
        let known: Vec<Arc<Live>> = {
            let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
            live.retain(|_, known| known.expires.is_none_or(|expires| now < expires));
            live.values().cloned().collect()
        };
        for known in known {
            let used = known.used.load(Ordering::Relaxed);
            if used == 0 {
                continue;
            }
            let used = Timestamp::from_unix(used);
            self.records
                .change(&known.id.to_string(), |old: Option<UserTokenRecord>| {
                    let due = old.filter(|old| old.last_used.is_none_or(|last| last < since && last < used));
                    Ok((due.map(|old| UserTokenRecord { last_used: Some(used), ..old }), ()))
                })
                .await?;
        }
        Ok(())
    }

    fn with_use(&self, mut record: UserTokenRecord) -> UserTokenRecord {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = live.get(&record.fingerprint) {
            let used = Some(known.used.load(Ordering::Relaxed)).filter(|used| *used > 0);
            record.last_used = record.last_used.max(used.map(Timestamp::from_unix));
        }
        record
    }
}

impl Live {
    fn answers_to(&self, user: &str) -> bool {
        user.is_empty() || user == self.name.name() || user == self.id.to_string()
    }
}

impl TokenDirectory for Tokens {
    fn find(&self, user: Option<&str>, token: &Secret, now: Timestamp) -> Result<Option<Principal>> {
        if !UserToken::is_meant(token) {
            return Ok(None);
        }
        self.authenticate(user, token, now).map(Some)
    }
}

/// Whether a token of these scopes reaches no further than credentials that are narrowed to
/// `within`. Scopes are compared as they are written: a scope is inside another if it names a subset
/// of its actions on the same things, or if the other names everything.
fn check_within(asked: Option<&[Scope]>, within: Option<&[Scope]>) -> Result<()> {
    let Some(within) = within else { return Ok(()) };
    let inside = |scope: &Scope| {
        scope.actions.iter().all(|action| {
            within.iter().any(|outer| outer.actions.contains(action) && outer.reach.covers(&scope.reach))
        })
    };
    if asked.is_some_and(|asked| asked.iter().all(inside)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Forbidden,
        "a token may not reach further than the credentials it is made with",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::MemoryStore;

    const NOW: Timestamp = Timestamp::from_unix(1_795_323_600);

    fn root() -> Principal {
        Principal::Token { name: "root".into() }
    }

    async fn tokens(store: &MemoryStore) -> Tokens {
        Tokens::open(Arc::new(store.clone()), &"default".parse().unwrap()).await.unwrap()
    }

    fn new(principal: &str) -> NewUserToken {
        NewUserToken::new(principal.parse().unwrap())
    }

    /// F03: also for lives of minutes, and after a restart.
    #[tokio::test]
    async fn a_revoked_token_opens_nothing_from_the_next_request_on() {
        let store = MemoryStore::new();
        let tokens = tokens(&store).await;
        for life in [60, 3_600, 21_000, 90 * 86_400] {
            let short = NewUserToken { expires: Some(NOW.plus(life)), ..new("service:ci") };
            let (record, secret) = tokens.mint(short, &root(), NOW).await.unwrap();
            let found = tokens.authenticate(None, &secret, NOW).unwrap();
            assert_eq!(
                (found.to_string(), found.credential()),
                ("service:ci".into(), Some(&*record.id.to_string()))
            );
            assert!(tokens.revoke(record.id, "user:root", "left", NOW).await.unwrap().is_some());
            assert_eq!(
                tokens.authenticate(None, &secret, NOW).unwrap_err().kind(),
                ErrorKind::Unauthenticated
            );
            let again = super::tests::tokens(&store).await;
            assert!(again.authenticate(None, &secret, NOW).is_err());
            let kept = again.token(record.id).await.unwrap().unwrap();
            assert_eq!(kept.revoked.unwrap().reason, "left");
        }
        assert_eq!(tokens.list().await.unwrap().len(), 4, "the log may name them");
        assert!(tokens.revoke(TokenId::random().unwrap(), "x", "y", NOW).await.unwrap().is_none());
    }

    /// F02.
    #[tokio::test]
    async fn the_secret_of_one_token_opens_nothing_under_the_id_of_another() {
        let store = MemoryStore::new();
        let tokens = tokens(&store).await;
        let (x, secret_x) = tokens.mint(new("user:x"), &root(), NOW).await.unwrap();
        let (y, secret_y) = tokens.mint(new("user:y"), &root(), NOW).await.unwrap();
        let text = secret_x.expose_str().unwrap();
        let swapped = text.replace(&x.id.to_string(), &y.id.to_string());
        assert!(tokens.authenticate(None, &Secret::new(swapped), NOW).is_err());
        let (id_x, id_y) = (x.id.to_string(), y.id.to_string());
        for (user, good) in
            [("", true), ("x", true), (&*id_x, true), ("y", false), (&*id_y, false), ("X", false)]
        {
            assert_eq!(tokens.authenticate(Some(user), &secret_x, NOW).is_ok(), good, "{user:?}");
        }
        assert!(tokens.authenticate(Some("y"), &secret_y, NOW).is_ok());
    }

    #[tokio::test]
    async fn an_expired_token_opens_nothing_and_its_use_is_remembered() {
        let store = MemoryStore::new();
        let tokens = tokens(&store).await;
        let short = NewUserToken { expires: Some(NOW.plus(60)), ..new("user:x") };
        let (record, secret) = tokens.mint(short, &root(), NOW).await.unwrap();
        assert!(tokens.authenticate(None, &secret, NOW.plus(59)).is_ok());
        assert!(tokens.authenticate(None, &secret, NOW.plus(60)).is_err());
        assert_eq!(tokens.token(record.id).await.unwrap().unwrap().last_used, Some(NOW.plus(59)));
        tokens.settle(NOW, NOW.plus(59)).await.unwrap();
        let again = super::tests::tokens(&store).await;
        assert_eq!(again.token(record.id).await.unwrap().unwrap().last_used, Some(NOW.plus(59)));
        again.settle(NOW, NOW.plus(61)).await.unwrap();
        assert!(again.live.read().unwrap().is_empty());
    }

    /// K08: a million tokens that nobody made.
    #[tokio::test]
    async fn bad_tokens_are_not_remembered() {
        let store = MemoryStore::new();
        let tokens = tokens(&store).await;
        let (_, good) = tokens.mint(new("user:x"), &root(), NOW).await.unwrap();
        let capacity = tokens.live.read().unwrap().capacity();
        for _ in 0..20_000 {
            let bad = UserToken::mint(TokenId::random().unwrap()).unwrap();
            assert!(tokens.authenticate(None, bad.secret(), NOW).is_err());
        }
        assert_eq!(tokens.live.read().unwrap().capacity(), capacity);
        assert!(tokens.authenticate(None, &good, NOW).is_ok());
    }

    #[tokio::test]
    async fn no_token_is_wider_than_the_one_it_is_made_with() {
        let store = MemoryStore::new();
        let tokens = tokens(&store).await;
        let scopes = |text: &str| Some(text.split(' ').map(|one| one.parse().unwrap()).collect());
        let narrow = NewUserToken { scopes: scopes("administer:edge read,list:files/**"), ..new("user:x") };
        let (_, secret) = tokens.mint(narrow, &root(), NOW).await.unwrap();
        let by = tokens.authenticate(None, &secret, NOW).unwrap();
        for (asked, good) in [
            ("read:files/**", true),
            ("administer:edge", true),
            ("list,read:files/** administer:edge", true),
            ("read,withdraw:files/**", false),
            ("read:*", false),
            ("read:bundle:files", false),
            ("read:secret/**", false),
        ] {
            let asked_for = NewUserToken { scopes: scopes(asked), ..new("user:y") };
            assert_eq!(tokens.mint(asked_for, &by, NOW).await.is_ok(), good, "{asked}");
        }
        assert!(tokens.mint(new("user:y"), &by, NOW).await.is_err(), "no scope at all is the widest");
    }
}
