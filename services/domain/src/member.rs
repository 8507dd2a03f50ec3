//! Who may change who is in an account: invitations, roles, removal, leaving. An account keeps an owner always.

use crate::error::ErrorCode;
use crate::scope::Role;

/// One membership that somebody wants to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What the asker may do.
    pub asker: Role,
    /// Whether it is the asker's own membership.
    pub own: bool,
    /// What the member may do so far.
    pub role: Role,
    /// How many owners the account has.
    pub owners: u64,
}

/// What another role means for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Same,
    /// More rights: a fresh proof of the asker is wanted.
    Promotion,
    /// Fewer rights: every session ends and every machine hears of it.
    Demotion,
}

impl Change {
    /// What a step from one role to another is.
    #[must_use]
    pub fn between(from: Role, to: Role) -> Self {
        match to.cmp(&from) {
            std::cmp::Ordering::Equal => Self::Same,
            std::cmp::Ordering::Greater => Self::Promotion,
            std::cmp::Ordering::Less => Self::Demotion,
        }
    }
}

impl Case {
    /// Whether the member may get another role.
    ///
    /// # Errors
    /// `forbidden` to anybody but an owner; `last_owner` when nobody would be left who can.
    pub fn change_role(&self, to: Role) -> Result<Change, ErrorCode> {
        require_owner(self.asker)?;
        if to < Role::Owner {
            self.keep_an_owner()?;
        }
        Ok(Change::between(self.role, to))
    }

    /// Whether the member may be removed, or leave.
    ///
    /// # Errors
    /// `forbidden` when it is somebody else's membership and the asker no owner; `last_owner`.
    pub fn remove(&self) -> Result<(), ErrorCode> {
        if !self.own {
            require_owner(self.asker)?;
        }
        self.keep_an_owner()
    }

    fn keep_an_owner(&self) -> Result<(), ErrorCode> {
        if self.role == Role::Owner && self.owners <= 1 { Err(ErrorCode::LastOwner) } else { Ok(()) }
    }
}

/// Whether a member may invite others, and see and take back invitations.
///
/// # Errors
/// `forbidden` to anybody but an owner.
pub fn require_owner(asker: Role) -> Result<(), ErrorCode> {
    if asker == Role::Owner { Ok(()) } else { Err(ErrorCode::Forbidden) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Owner];

    fn case(asker: Role, own: bool, role: Role, owners: u64) -> Case {
        Case { asker, own, role, owners }
    }

    #[test]
    fn only_an_owner_changes_roles_and_says_which_way() {
        for (asker, own) in [(Role::Viewer, false), (Role::Operator, false), (Role::Operator, true)] {
            for (role, to) in ROLES.into_iter().flat_map(|role| ROLES.map(|to| (role, to))) {
                assert_eq!(case(asker, own, role, 2).change_role(to), Err(ErrorCode::Forbidden));
            }
        }
        let by_owner = |role, to| case(Role::Owner, false, role, 2).change_role(to);
        assert_eq!(by_owner(Role::Viewer, Role::Owner), Ok(Change::Promotion));
        assert_eq!(by_owner(Role::Owner, Role::Operator), Ok(Change::Demotion));
        assert_eq!(by_owner(Role::Viewer, Role::Viewer), Ok(Change::Same));
    }

    #[test]
    fn the_last_owner_stays_owner_and_stays() {
        for to in [Role::Viewer, Role::Operator] {
            assert_eq!(case(Role::Owner, true, Role::Owner, 1).change_role(to), Err(ErrorCode::LastOwner));
            assert_eq!(case(Role::Owner, true, Role::Owner, 2).change_role(to), Ok(Change::Demotion));
        }
        assert_eq!(case(Role::Owner, true, Role::Owner, 1).change_role(Role::Owner), Ok(Change::Same));
        assert_eq!(case(Role::Owner, true, Role::Owner, 1).remove(), Err(ErrorCode::LastOwner));
        assert_eq!(case(Role::Owner, true, Role::Owner, 2).remove(), Ok(()));
    }

    #[test]
    fn anybody_leaves_and_only_an_owner_removes_others() {
        for role in ROLES {
            assert_eq!(case(role, true, role, 2).remove(), Ok(()));
            let expected = if role == Role::Owner { Ok(()) } else { Err(ErrorCode::Forbidden) };
            assert_eq!(case(role, false, Role::Viewer, 2).remove(), expected);
            assert_eq!(require_owner(role), expected);
        }
    }
}
