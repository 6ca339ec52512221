//! The flags of certificates, of who may call, and of users.

use super::store;
use crate::config::flag::Flag;
use crate::config::flag::Kind::{List, Origins, SetInline, Switch, Text, Unsigned};
use crate::config::flag::Section::{Auth, Security};

const NO_TLS: &str = "ringd does not speak TLS yet";
const NO_AUTH: &str = "ringd has no users yet";

macro_rules! tls {
    ($side:literal: $name:literal, $kind:ident, $default:literal, $key:literal, $help:literal) => {
        Flag::new(Security, $name, $kind, $default, $help).in_file(&[$side, $key]).refused(NO_TLS)
    };
}

/// Certificates, and who may call.
#[rustfmt::skip]
pub const SECURITY: &[Flag] = &[
    tls!("client-transport-security": "cert-file", Text, "", "cert-file",
        "The certificate shown to clients."),
    tls!("client-transport-security": "key-file", Text, "", "key-file",
        "The key of that certificate."),
    tls!("client-transport-security": "client-cert-auth", Switch, "false", "client-cert-auth",
        "Demand a certificate from every client."),
    tls!("client-transport-security": "client-cert-file", Text, "", "client-cert-file",
        "The certificate for calls to ourselves."),
    tls!("client-transport-security": "client-key-file", Text, "", "client-key-file",
        "The key of that certificate."),
    Flag::new(Security, "client-crl-file", Text, "", "Client certificates that were revoked.")
        .not_in_file()
        .refused(NO_TLS),
    tls!("client-transport-security": "client-cert-allowed-hostname", List, "", "allowed-hostname",
        "Host names one of which a client's certificate must carry."),
    tls!("client-transport-security": "trusted-ca-file", Text, "", "trusted-ca-file",
        "Who signs the certificates of clients."),
    tls!("client-transport-security": "auto-tls", Switch, "false", "auto-tls",
        "Serve clients with a certificate made at start."),
    tls!("peer-transport-security": "peer-cert-file", Text, "", "cert-file",
        "The certificate shown to other members."),
    tls!("peer-transport-security": "peer-key-file", Text, "", "key-file",
        "The key of that certificate."),
    tls!("peer-transport-security": "peer-client-cert-auth", Switch, "false", "client-cert-auth",
        "Demand a certificate from every member."),
    tls!("peer-transport-security": "peer-client-cert-file", Text, "", "client-cert-file",
        "The certificate for calls to other members."),
    tls!("peer-transport-security": "peer-client-key-file", Text, "", "client-key-file",
        "The key of that certificate."),
    tls!("peer-transport-security": "peer-trusted-ca-file", Text, "", "trusted-ca-file",
        "Who signs the certificates of members."),
    tls!("peer-transport-security": "peer-cert-allowed-cn", List, "", "allowed-cn",
        "Common names one of which a member's certificate must carry."),
    tls!("peer-transport-security": "peer-cert-allowed-hostname", List, "", "allowed-hostname",
        "Host names one of which a member's certificate must carry."),
    tls!("peer-transport-security": "peer-auto-tls", Switch, "false", "auto-tls",
        "Serve members with a certificate made at start."),
    Flag::new(Security, "self-signed-cert-validity", Unsigned, "1",
        "Years for which certificates made at start are good.")
        .refused(NO_TLS),
    Flag::new(Security, "peer-crl-file", Text, "", "Certificates of members that were revoked.")
        .not_in_file()
        .refused(NO_TLS),
    tls!("peer-transport-security": "peer-skip-client-san-verification", Switch, "false",
        "skip-client-san-verification",
        "Do not look at the host names in a member's certificate."),
    Flag::new(Security, "cipher-suites", List, "", "The TLS ciphers to choose from.")
        .refused(NO_TLS)
        .checked(store!(raw.tls_cipher_suites: into_texts)),
    Flag::new(Security, "cors", Origins, "*",
        "Web sites whose scripts may call the API; * is all.")
        .served(store!(cors: into_texts)),
    Flag::new(Security, "host-whitelist", SetInline, "*",
        "Host names under which plain HTTP may be asked; * is all.")
        .served(store!(host_whitelist: into_texts)),
    Flag::new(Security, "tls-min-version", Text, "TLS1.2", "The oldest TLS spoken.")
        .refused(NO_TLS)
        .checked(store!(raw.tls_version_min: into_text)),
    Flag::new(Security, "tls-max-version", Text, "", "The newest TLS spoken.")
        .refused(NO_TLS)
        .checked(store!(raw.tls_version_max: into_text)),
];

/// Users and tokens.
#[rustfmt::skip]
pub const AUTH: &[Flag] = &[
    Flag::new(Auth, "auth-token", Text, "simple",
        "The kind of token a login gets: simple, or jwt with its keys.")
        .refused(NO_AUTH),
    Flag::new(Auth, "bcrypt-cost", Unsigned, "10", "How dear the hash of a password is.")
        .refused(NO_AUTH),
    Flag::new(Auth, "auth-token-ttl", Unsigned, "300",
        "Seconds for which a simple token is good.")
        .refused(NO_AUTH),
];
