import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { Directory } from '../../src/directory';
import { Reports } from '../../src/reports';
import { SealKeys } from '../../src/seal';
import { decodeRecord } from '../../src/snapshot/decode';
import type { InstanceState } from '../../src/snapshot/follower';
import type { Credential, Snapshot } from '../../src/snapshot/snapshot';
import { SERVE_ALL } from '../support/following';
import { CapturingLogger } from '../support/logger';
import { cluster, SEAL_LINE, sealedFor } from '../support/published';

const HOUR = 3_600_000;
const NOW = 1_800_000_000_000;
const SEALER = SealKeys.fromLines(SEAL_LINE);
const FOREIGN: Credential = {
  raw: 'canary-sealed',
  hash: '',
  refused: { reason: 'SealKeyUnknown', kid: 'elsewhere', message: 'no such key' },
};

function stateOf(version: number, credentials: Credential[], checkedAt = NOW): InstanceState {
  const entries: Snapshot['entries'] = new Map(
    credentials.map((credential, at) => {
      const one = cluster(at);
      const record = decodeRecord('alpha', one.uid, JSON.stringify(one));
      return [one.uid, { uid: one.uid, hash: '', record, credential }];
    }),
  );
  const numbers = {
    epoch: 1,
    version,
    clusters: entries.size,
    changedAt: NOW,
    changedAtText: '',
    credentialsDigest: '',
    unconfirmed: '',
  };
  const snapshot = { head: { ...numbers, digest: '', mac: '', complete: true }, entries, kept: new Map() };
  return { name: 'alpha', reloads: 1, checkedAt, snapshot };
}

class Reporting {
  readonly logger = new CapturingLogger();
  readonly #directory = new Directory(SERVE_ALL);
  readonly #reports = new Reports(this.logger, this.#directory, SEALER, HOUR);

  async after(state: InstanceState, now = NOW): Promise<string[]> {
    const before = this.logger.lines.length;
    await this.#directory.update(state.name, state.snapshot!);
    this.#reports.report([state], now);
    return this.logger.lines.slice(before);
  }
}

test('the counts of served and withheld clusters are logged, and again when they change', async () => {
  const reporting = new Reporting();
  const good: Credential = { raw: 'canary', hash: '', token: 'canary-token', expiresAt: NOW + HOUR };

  assert.deepEqual(await reporting.after(stateOf(1, [good, good])), [
    'info palette-sync: alpha: 2 clusters served (version 1) ""',
  ]);
  assert.deepEqual(await reporting.after(stateOf(2, [good, good])), []);
  assert.deepEqual(await reporting.after(stateOf(2, [good, good]), NOW + HOUR), [
    'info palette-sync: alpha: 0 clusters served, withheld: 2 TokenLapsed (version 2) ""',
  ]);
});

test('tokens sealed with an unknown key are logged once, in one line with its id', async () => {
  const reporting = new Reporting();

  await reporting.after(stateOf(1, [FOREIGN, FOREIGN]));
  await reporting.after(stateOf(2, [FOREIGN, FOREIGN, FOREIGN]));

  assert.equal(reporting.logger.count(/sealed with/), 1);
  assert.equal(
    reporting.logger.count(/2 tokens are sealed with the key elsewhere, .* \(tests\); .* paletteSync\.sealKeys/),
    1,
  );
  assert(!reporting.logger.text.includes('canary'));
});

test('a token that another key of the same id sealed is withheld, and no unknown key is logged', async () => {
  const reporting = new Reporting();
  const other = SealKeys.fromLines(`tests ${randomBytes(32).toString('base64url')}`);
  const opened = other.open(sealedFor(cluster(1)), 'none:canary');
  assert('refused' in opened);

  await reporting.after(stateOf(1, [{ raw: 'canary', hash: '', refused: opened.refused }]));

  assert.equal(reporting.logger.count(/withheld: 1 SealBroken/), 1);
  assert.equal(reporting.logger.count(/sealed with/), 0);
});

test('a daemon that stopped is logged once, and so is its return', async () => {
  const reporting = new Reporting();

  for (const minutes of [59, 61, 62]) {
    await reporting.after(stateOf(1, []), NOW + minutes * 60_000);
  }
  assert.equal(reporting.logger.count(/the daemon has not read Palette for 61 min/), 1);
  assert.equal(reporting.logger.count(/has not read/), 1);

  await reporting.after(stateOf(1, [], NOW + 2 * HOUR), NOW + 2 * HOUR);
  assert.equal(reporting.logger.count(/alpha: the daemon reads Palette again/), 1);
});
