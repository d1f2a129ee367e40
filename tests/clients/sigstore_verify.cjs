// Verifies a sigstore bundle that was signed by a plain key with the `@sigstore/verify` library.
//
// usage: node sigstore_verify.cjs BUNDLE PUBLIC_KEY_PEM KEY_ID
//
// Leaves with 0 if the bundle's one signature is by the key, else says why not and leaves with 1.

const fs = require('fs');
const crypto = require('crypto');
const { bundleFromJSON } = require('@sigstore/bundle');
const { Verifier, toSignedEntity } = require('@sigstore/verify');

const [bundlePath, keyPath, keyId] = process.argv.slice(2);
const publicKey = crypto.createPublicKey(fs.readFileSync(keyPath));
const trustMaterial = {
  certificateAuthorities: [],
  timestampAuthorities: [],
  tlogs: [],
  ctlogs: [],
  publicKey: (hint) => {
    if (hint !== keyId) throw new Error(`the bundle names the key ${hint}`);
    return { publicKey, validFor: () => true };
  },
};

try {
  const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(bundlePath)));
  const options = { tlogThreshold: 0, ctlogThreshold: 0, tsaThreshold: 0, timestampThreshold: 0 };
  new Verifier(trustMaterial, options).verify(toSignedEntity(bundle));
} catch (error) {
  console.log(error.message);
  process.exit(1);
}
