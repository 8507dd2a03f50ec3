// A real identity provider on a free port. It says its issuer on standard output, and takes words on standard input:
// `rotate` makes it sign with another key from then on. Its sign-in page takes any name and any password.

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const [redirectUri, clientSecret] = process.argv.slice(2);

function newKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
}

function newProvider(issuer) {
  return new Provider(issuer, {
    clients: [{ client_id: 'flydex', client_secret: clientSecret, redirect_uris: [redirectUri] }],
    jwks: { keys: [newKey()] },
    cookies: { keys: [randomUUID()] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  });
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  let provider = newProvider(issuer);
  server.on('request', (request, response) => provider.callback()(request, response));
  process.stdout.write(`issuer ${issuer}\n`);
  createInterface({ input: process.stdin })
    .on('line', (word) => {
      if (word !== 'rotate') return;
      provider = newProvider(issuer);
      process.stdout.write('rotated\n');
    })
    .on('close', () => process.exit(0));
});
