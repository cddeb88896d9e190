import type { HumanDuration } from '@backstage/types';

export interface Config {
  /** palette-sync: shows the clusters of Spectro Cloud Palette, from the snapshots that the daemon publishes in Redis. */
  paletteSync?: {
    redis: {
      /**
       * The Redis that the daemon writes to: redis://[user:password@]host[:port][/db], rediss://..., unix:///path or
       * redis+sentinel://host[:port],host2[:port]/service[/db].
       * @visibility secret
       */
      url?: string;
      /** A file that holds the URL, instead of `url`. Read anew at each connecting. */
      urlFile?: string;
      /** The daemon's `redis.prefix`. Default: palette-sync. */
      prefix?: string;
      /** For rediss:// and rediss+sentinel://. */
      tls?: {
        /** Whom to trust. Default: the system's trust. */
        caFile?: string;
        /** A client certificate, with `keyFile`. */
        certFile?: string;
        keyFile?: string;
        /** The name in the server's certificate, where it differs from the host of the URL. */
        serverName?: string;
      };
    };
    /**
     * The daemon's seal keys, one a line: `<kid> <key>`. All of them open. One of sealKeys, sealKeysFile and seal must be
     * given.
     * @visibility secret
     */
    sealKeys?: string;
    /** A file with the daemon's seal keys. */
    sealKeysFile?: string;
    /** `none` if the daemon runs with seal = "none": tokens then lie in Redis as they are, and nothing is authenticated. */
    seal?: 'none';
    /** The Palette instances to show, by the daemon's names. Default: all that are published. */
    instances?: string[];
    /**
     * OIDC providers whose tokens every user of the Kubernetes pages has. Clusters of other providers are withheld, because
     * one user without a token would get an error instead of all clusters. Default: none.
     */
    oidcTokenProviders?: string[];
    /** Withholds clusters that the daemon cannot reach; each of them would hold up the page. Default: true. */
    withholdUnreachable?: boolean;
    /** Warn when the daemon has not looked for this long. Clusters are never withheld for their age. Default: 1h. */
    maxSnapshotAge?: HumanDuration | string;
    /** Names and globs; an empty include list includes everything, exclude lists always win. */
    filter?: {
      /** Names or uids of Palette projects. */
      includeProjects?: string[];
      excludeProjects?: string[];
      /** `key:value` or plain tags of clusters. */
      includeTags?: string[];
      excludeTags?: string[];
    };
    /** Links from Backstage to the cluster's page in Palette. Default: true. */
    dashboardLinks?: boolean;
    /** The former place of `catalog.providers.paletteSync`. It is still read if that one is absent. */
    catalog?: PaletteSyncCatalog;
  };
  catalog?: {
    providers?: {
      /** How the clusters of palette-sync are described in the catalog. */
      paletteSync?: PaletteSyncCatalog;
    };
  };
}

interface PaletteSyncCatalog {
  /** The namespace of the entities. Default: default. */
  namespace?: string;
  /** The `spec.type` of the entities. Default: kubernetes-cluster. */
  type?: string;
  /** What stands before the `/` of the entities' own annotations. Default: palette-sync. */
  annotationPrefix?: string;
  /** The key of the Palette tag `<key>:<value>` that names the owner. Default: owner. */
  ownerTag?: string;
  /** The owner of clusters without such a tag. Default: group:default/unknown. */
  defaultOwner?: string;
  /** What a Palette project becomes. `system` needs a System entity of that name in the namespace default. Default: tag. */
  projectAs?: 'tag' | 'system' | 'both';
}
