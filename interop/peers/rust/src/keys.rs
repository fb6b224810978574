//! Identity keys of the four types.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
};
use libp2p::identity::Keypair;

pub fn generate(key_type: &str) -> Result<Keypair, String> {
    match key_type {
        "ed25519" => Ok(Keypair::generate_ed25519()),
        "secp256k1" => Ok(Keypair::generate_secp256k1()),
        "ecdsa" => Ok(Keypair::generate_ecdsa()),
        "rsa" => generate_rsa().map_err(|e| format!("making an RSA key: {e}")),
        other => Err(format!("no key type {other}")),
    }
}

/// libp2p loads RSA keys but cannot make one, so the key comes from elsewhere and goes through PKCS#8. 2048 bits is the
/// smallest size that all implementations accept.
fn generate_rsa() -> Result<Keypair, Box<dyn std::error::Error>> {
    let key = KeyPair::generate(KeySize::Rsa2048)?;
    let mut der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der>::as_der(&key)?
        .as_ref()
        .to_vec();
    Ok(Keypair::rsa_from_pkcs8(&mut der)?)
}
