import type { HumanDuration } from '@backstage/types';

export interface Config {
  /** palette-sync: shows the clusters of Spectro Cloud Palette, from the snapshots that the daemon publishes in Redis. */
  paletteSync?: {
    redis: {
      /**
       * The Redis that the daemon writes to: redis://[user:password@]host[:port][/db], rediss://..., unix:///path,
       * redis+sentinel://host[:port],host2[:port]/service[/db] or redis+cluster://host[:port],host2[:port].
       * @visibility secret
       */
      url?: string;
      /** A file that holds the URL, instead of `url`. Read again at each connection. */
      urlFile?: string;
      /** The daemon's `redis.prefix`. Default: palette-sync. */
      prefix?: string;
      /** For rediss://, rediss+sentinel:// and rediss+cluster://. */
      tls?: {
        /** The certificate authorities that are trusted. Default: the system's. */
        caFile?: string;
        /** A client certificate, with `keyFile`. */
        certFile?: string;
        keyFile?: string;
        /** The name in the server's certificate, where it differs from the host of the URL. */
        serverName?: string;
      };
    };
    /**
     * The daemon's seal keys, one per line: `<kid> <key>`. All of them open tokens. Exactly one of sealKeys, sealKeysFile and
     * seal must be set.
     * @visibility secret
     */
    sealKeys?: string;
    /** A file with the daemon's seal keys. */
    sealKeysFile?: string;
    /** `none` if the daemon runs with seal = "none": Redis then holds tokens in clear, and nothing is authenticated. */
    seal?: 'none';
    /** The Palette instances to show, by the daemon's names. Default: all that are published. */
    instances?: string[];
    /** The OIDC providers whose clusters are shown. Default: all. */
    oidcTokenProviders?: string[];
    /** Which clusters a page asks. */
    locator?: {
      /**
       * What an entity gets that selects no cluster: what `kubernetes.serviceLocatorMethod` returns, or no cluster.
       * Default: all.
       */
      fallback?: 'all' | 'none';
      /** The most clusters that `fallback: all` returns. Default: 50. */
      fallbackLimit?: number;
      /**
       * Whether an entity of a System gets the clusters of the Palette project of that name. Default: true if the catalog
       * module puts projects into Systems, else false.
       */
      systems?: boolean;
    };
    /** `catalog`: a user gets only the clusters whose Resource the catalog shows him. Default: all. */
    visibility?: 'all' | 'catalog';
    /** The deadline of a cluster for its part of a page. Default: 5s. */
    clusterTimeout?: HumanDuration | string;
    /** How many clusters are asked at the same time, over all pages. Default: 32. */
    clusterConcurrency?: number;
    /** Withholds clusters that the daemon cannot reach. Default: true. */
    withholdUnreachable?: boolean;
    /** Globs of tags; clusters with one of them are not shown on the Kubernetes pages. Default: none. */
    maintenanceTags?: string[];
    /** Warn if the daemon has not read Palette for this long. No cluster is withheld because of its age. Default: 1h. */
    maxSnapshotAge?: HumanDuration | string;
    /** Names and globs; an empty include list includes everything, exclude lists always win. */
    filter?: {
      /** Names or uids of Palette projects. */
      includeProjects?: string[];
      excludeProjects?: string[];
      /** `key:value` or plain tags of clusters. */
      includeTags?: string[];
      excludeTags?: string[];
      /** The lists of projects do not apply to clusters in the tenant's scope. Default: false. */
      excludeTenantScopedClusters?: boolean;
    };
    /** Links from Backstage to a dashboard of the cluster. Default: true. */
    dashboardLinks?: boolean;
    dashboard?: {
      /**
       * A template with {name}, {title}, {uid}, {instance}, {project}, {projectUid}, {cloudType}. Default: the cluster's page
       * in Palette.
       */
      url?: string;
      /** The dashboard that Backstage formats links for, such as headlamp or rancher. Default: standard. */
      app?: string;
      /** What the formatter of that dashboard needs. Texts are templates, too. */
      parameters?: { [name: string]: string | number | boolean };
    };
    /** Set one to false to leave that extension point of the Kubernetes plugin to another module. Default: true. */
    extensionPoints?: {
      clusterSupplier?: boolean;
      serviceLocator?: boolean;
      objectsProvider?: boolean;
      fetcher?: boolean;
    };
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
