//! Who may do what: the buckets `auth`, `authUsers` and `authRoles`.

use super::super::protobuf::{self, Fields, Malformed, Value};
use super::{
    AUTH, AUTH_ROLES, AUTH_USERS, Pair, SchemaError, SchemaRule, be_bytes, be_number, broken,
    present, text,
};

/// In [`AUTH`]: one byte, 0 or 1.
const AUTH_ENABLED: &[u8] = b"authEnabled";
/// In [`AUTH`]: 8 bytes.
const AUTH_REVISION: &[u8] = b"authRevision";

/// Whether requests are checked: the bucket [`AUTH`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Whether they are.
    pub enabled: Option<bool>,
    /// The version of users and roles.
    pub revision: Option<u64>,
}

impl Auth {
    /// The bucket's pairs, in order.
    #[must_use]
    pub fn to_pairs(self) -> Vec<Pair> {
        let enabled = self.enabled.map(|enabled| vec![u8::from(enabled)]);
        present([(AUTH_ENABLED, enabled), (AUTH_REVISION, self.revision.map(be_bytes))])
    }

    /// Takes in one of the bucket's pairs. Unknown keys are passed over, as etcd does.
    pub fn read_pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), SchemaError> {
        if key == AUTH_ENABLED {
            self.enabled = match value {
                [0] => Some(false),
                [1] => Some(true),
                _ => return Err(broken(AUTH, key, SchemaRule::ValueLength)),
            };
        } else if key == AUTH_REVISION {
            self.revision = Some(be_number(AUTH, key, value)?);
        }
        Ok(())
    }
}

/// A pair of [`AUTH_USERS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: Vec<u8>,
    /// The password's hash; empty for none.
    pub password_hash: Vec<u8>,
    /// The names of the roles.
    pub roles: Vec<String>,
    /// Whether the user logs in by certificate only. `None` where a user was made without saying.
    pub no_password: Option<bool>,
}

impl User {
    /// As etcd keeps it.
    #[must_use]
    pub fn to_pair(&self) -> Pair {
        let mut value = Vec::new();
        protobuf::bytes_into(1, &self.name, &mut value);
        protobuf::bytes_into(2, &self.password_hash, &mut value);
        for role in &self.roles {
            protobuf::element_into(3, role.as_bytes(), &mut value);
        }
        if let Some(no_password) = self.no_password {
            let mut options = Vec::new();
            protobuf::number_into(1, u64::from(no_password), &mut options);
            protobuf::element_into(4, &options, &mut value);
        }
        (self.name.clone(), value)
    }

    /// The inverse of [`User::to_pair`].
    pub fn from_pair(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let error = |Malformed| broken(AUTH_USERS, key, SchemaRule::ValueProtobuf);
        let mut user = Self::default();
        let mut fields = Fields::new(value);
        while let Some(field) = fields.next().map_err(error)? {
            match field {
                (1, Value::Bytes(bytes)) => user.name = bytes.to_vec(),
                (2, Value::Bytes(bytes)) => user.password_hash = bytes.to_vec(),
                (3, Value::Bytes(bytes)) => user.roles.push(text(AUTH_USERS, key, bytes)?),
                (4, Value::Bytes(bytes)) => {
                    // Go merges: an option that is given twice keeps what the first said.
                    let mut no_password = user.no_password.unwrap_or_default();
                    let mut options = Fields::new(bytes);
                    while let Some(option) = options.next().map_err(error)? {
                        if let (1, Value::Number(number)) = option {
                            no_password = number != 0;
                        }
                    }
                    user.no_password = Some(no_password);
                }
                _ => {}
            }
        }
        if user.name != key {
            return Err(broken(AUTH_USERS, key, SchemaRule::ValueOfAnother));
        }
        Ok(user)
    }
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PermissionKind {
    /// To read.
    #[default]
    Read,
    /// To write.
    Write,
    /// Both.
    ReadWrite,
}

/// One permission of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    /// What is allowed.
    pub kind: PermissionKind,
    /// Where the range begins.
    pub key: Vec<u8>,
    /// Where it ends, as in a range request.
    pub range_end: Vec<u8>,
}

/// A pair of [`AUTH_ROLES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The name.
    pub name: Vec<u8>,
    /// What it may, in etcd's order: by key.
    pub permissions: Vec<Permission>,
}

impl Role {
    /// As etcd keeps it.
    #[must_use]
    pub fn to_pair(&self) -> Pair {
        let mut value = Vec::new();
        protobuf::bytes_into(1, &self.name, &mut value);
        for permission in &self.permissions {
            let mut message = Vec::new();
            protobuf::number_into(1, permission.kind as u64, &mut message);
            protobuf::bytes_into(2, &permission.key, &mut message);
            protobuf::bytes_into(3, &permission.range_end, &mut message);
            protobuf::element_into(2, &message, &mut value);
        }
        (self.name.clone(), value)
    }

    /// The inverse of [`Role::to_pair`].
    pub fn from_pair(key: &[u8], value: &[u8]) -> Result<Self, SchemaError> {
        let error = |Malformed| broken(AUTH_ROLES, key, SchemaRule::ValueProtobuf);
        let mut role = Self::default();
        let mut fields = Fields::new(value);
        while let Some(field) = fields.next().map_err(error)? {
            match field {
                (1, Value::Bytes(bytes)) => role.name = bytes.to_vec(),
                (2, Value::Bytes(bytes)) => {
                    role.permissions.push(permission_from(bytes).map_err(error)?);
                }
                _ => {}
            }
        }
        if role.name != key {
            return Err(broken(AUTH_ROLES, key, SchemaRule::ValueOfAnother));
        }
        Ok(role)
    }
}

fn permission_from(message: &[u8]) -> Result<Permission, Malformed> {
    let mut permission = Permission::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Number(0)) => permission.kind = PermissionKind::Read,
            (1, Value::Number(1)) => permission.kind = PermissionKind::Write,
            (1, Value::Number(2)) => permission.kind = PermissionKind::ReadWrite,
            // To guess what an unknown kind allows would be worse than to refuse the file.
            (1, _) => return Err(Malformed),
            (2, Value::Bytes(bytes)) => permission.key = bytes.to_vec(),
            (3, Value::Bytes(bytes)) => permission.range_end = bytes.to_vec(),
            _ => {}
        }
    }
    Ok(permission)
}
