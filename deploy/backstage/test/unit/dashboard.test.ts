import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DashboardSettings } from '../../src/config';
import { dashboardOf } from '../../src/dashboard';
import { decodeRecord } from '../../src/snapshot/decode';
import { cluster } from '../support/published';

const one = cluster(1, { project: { uid: 'p1', name: 'Web Shop' } });
const RECORD = decodeRecord('alpha', one.uid, JSON.stringify(one));

for (const [what, settings, wanted] of [
  [
    "nothing set: the cluster's page in Palette",
    { links: true },
    { dashboardUrl: `https://console.example/${one.uid}` },
  ],
  [
    'a template, whose values are encoded',
    { links: true, url: 'https://headlamp.example/{project}/c/{name}?i={instance}' },
    { dashboardUrl: 'https://headlamp.example/Web%20Shop/c/alpha-1?i=alpha' },
  ],
  [
    'another app with parameters, whose values are not encoded',
    {
      links: true,
      url: 'https://headlamp.example',
      app: 'headlamp',
      parameters: { clusterName: '{project}/{name}', internal: false },
    },
    {
      dashboardUrl: 'https://headlamp.example',
      dashboardApp: 'headlamp',
      dashboardParameters: { clusterName: 'Web Shop/alpha-1', internal: false },
    },
  ],
  ['no links', { links: false, url: 'https://headlamp.example', app: 'headlamp' }, {}],
] as [string, DashboardSettings, unknown][]) {
  test(what, () => {
    assert.deepEqual(dashboardOf(RECORD, settings), wanted);
  });
}
