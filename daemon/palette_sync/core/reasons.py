"""Every reason that palette-sync gives: in a record, a plan, a change, a metric or on the command line. Pure.

Reasons are API. People search for them, alert on them and read them in Backstage. A reason keeps its text for ever;
what it means may be worded better. `docs/reasons.md` and the runbook are written from this module.
"""

from __future__ import annotations

from enum import Flag, StrEnum, auto
from typing import Self


class Shown(Flag):
    """Where a reason can appear. `RECORD`: `access.reason` of a published cluster. `WORK`: why a pass works on a
    cluster. `ACTION`: why an object in the cluster is written. `CHANGE`: why a record was published, changed, dropped
    or held back. `PASS`: why a pass ended without a result (`palette_sync_pass_failures_total`). `STATUS`: what
    `palette-sync status` and `/status.json` report as wrong.
    """

    RECORD = auto()
    WORK = auto()
    ACTION = auto()
    CHANGE = auto()
    PASS = auto()
    STATUS = auto()


class Reason(StrEnum):
    """A reason with its explanation.

    `meaning`: what is the case. `by_itself`: what palette-sync does about it without help. `remedy`: what a person can
    do, empty where nothing needs to be done. `shown`: where it appears.
    """

    shown: Shown
    meaning: str
    by_itself: str
    remedy: str

    def __new__(cls, text: str, shown: Shown, meaning: str, by_itself: str, remedy: str = "") -> Self:
        member = str.__new__(cls, text)
        member._value_ = text
        member.shown = shown
        member.meaning = meaning
        member.by_itself = by_itself
        member.remedy = remedy
        return member

    @classmethod
    def read(cls, text: str) -> Reason:
        """Return the reason with that text; `UnknownReason` for a text of another version of palette-sync."""
        try:
            return cls(text)  # type: ignore[call-arg]  # a look-up by value, not a new member
        except ValueError:
            return cls.UNKNOWN_REASON

    # -- access works ------------------------------------------------------------------------------------------------
    VERIFIED = (
        "Verified",
        Shown.RECORD,
        "Access was proven with the published credential.",
        "It is verified again every `verify_interval`.",
    )
    LEGACY_TOKEN = (
        "LegacyToken",
        Shown.RECORD | Shown.ACTION,
        "Access works, but a Secret of the in-process plugin still holds a token that never expires.",
        "It labels the Secret and leaves it alone.",
        "Run `palette-sync replace-legacy` once nothing uses that token any more.",
    )

    # -- access has to wait ------------------------------------------------------------------------------------------
    WAITING = (
        "Waiting",
        Shown.RECORD,
        "First access has not been tried yet.",
        "A pass tries it next.",
    )
    NOT_RUNNING = (
        "NotRunning",
        Shown.RECORD,
        "Palette does not report the cluster as Running yet.",
        "It gives access once Palette reports Running.",
        "Look at the cluster in Palette if it stays like that.",
    )
    IMPORTED = (
        "Imported",
        Shown.RECORD,
        "The cluster was imported into Palette, which offers no kubeconfig of imported clusters.",
        "It shows the cluster without access, and asks for nothing until Palette reports it differently.",
        "Give the cluster to Backstage by other means, or leave it out with `include_imported = false`.",
    )
    WRITES_PAUSED = (
        "WritesPaused",
        Shown.RECORD | Shown.CHANGE | Shown.STATUS,
        "An operator paused the cluster: palette-sync writes nothing to it and keeps its record.",
        "It waits until the pause ends, and issues and renews no token meanwhile.",
        "Run `palette-sync resume CLUSTER`, or remove the tag `palette-sync:pause` in Palette.",
    )
    PAUSED_TOKEN_ENDS = (
        "PausedTokenEnds",
        Shown.STATUS,
        "The token of a paused cluster has reached its renewal time or has lapsed, and is not renewed.",
        "It waits until the pause ends; then it renews the token at once.",
        "Run `palette-sync resume CLUSTER`, or remove the tag `palette-sync:pause` in Palette.",
    )
    PAUSED = (
        "Paused",
        Shown.RECORD,
        "The virtual cluster is paused in Palette.",
        "It continues once the cluster is resumed.",
        "Resume the cluster in Palette.",
    )
    KUBECONFIG_NOT_READY = (
        "KubeconfigNotReady",
        Shown.RECORD,
        "Palette has no kubeconfig for the cluster yet.",
        "It tries again with growing pauses, up to 30 minutes.",
        "Look at the cluster in Palette if it stays like that.",
    )
    NAMESPACE_TERMINATING = (
        "NamespaceTerminating",
        Shown.RECORD,
        "The namespace of palette-sync is being deleted in the cluster.",
        "It creates the namespace again once the deletion has ended.",
        "If the deletion hangs, look for finalizers on the namespace.",
    )

    # -- Palette does not hand out what is needed --------------------------------------------------------------------
    KUBECONFIG_FORBIDDEN = (
        "KubeconfigForbidden",
        Shown.RECORD,
        "The API key may not download the cluster's kubeconfig.",
        "It tries again with growing pauses.",
        "Give the key's user the permission that the message names, or use OIDC for the cluster.",
    )
    PALETTE_UNAVAILABLE = (
        "PaletteUnavailable",
        Shown.RECORD,
        "Palette did not answer, or answered with an error, when it was asked for the cluster's files.",
        "It tries again with growing pauses. A published token stays in use as long as it lives.",
        "Look at `palette-sync check` and at Palette itself if it lasts.",
    )
    PROJECT_UNAVAILABLE = (
        "ProjectUnavailable",
        Shown.RECORD,
        "Palette does not find the cluster's project, or does not open it to the API key's user.",
        "It tries again with growing pauses. A published token stays in use as long as it lives.",
        "Give the key's user a role in the project, if the project still exists.",
    )
    OIDC_NOT_CONFIGURED = (
        "OidcNotConfigured",
        Shown.RECORD,
        "The cluster is to use OIDC, but Palette names no issuer and client for it.",
        "It looks again with growing pauses.",
        "Configure OIDC in the cluster's profile in Palette, or choose `service-account` or `auto` by a rule.",
    )
    ISSUER_NOT_ALLOWED = (
        "IssuerNotAllowed",
        Shown.RECORD,
        "Palette names an OIDC issuer or client for the cluster that the configuration does not allow.",
        "It waits, and publishes no OIDC login for the cluster.",
        "If the issuer is yours, allow it in `[instances.<name>.oidc] issuers`; `palette-sync check` prints the line.",
    )
    ISSUER_UNAVAILABLE = (
        "IssuerUnavailable",
        Shown.RECORD,
        "The OIDC issuer's metadata or keys cannot be read, or are not valid.",
        "It tries again with growing pauses. Metadata that was read before stays in use.",
        "Open the issuer's `/.well-known/openid-configuration`; the message says what is wrong.",
    )

    # -- the kubeconfig is not used ----------------------------------------------------------------------------------
    KUBECONFIG_MALFORMED = (
        "KubeconfigMalformed",
        Shown.RECORD,
        "Palette's kubeconfig is not valid.",
        "It downloads the file again with growing pauses.",
        "Download the kubeconfig from Palette and look at what the message names.",
    )
    KUBECONFIG_TOO_LARGE = (
        "KubeconfigTooLarge",
        Shown.RECORD,
        "Palette's kubeconfig is larger than palette-sync reads.",
        "It downloads the file again with growing pauses.",
        "Download the kubeconfig from Palette and look at why it is so large.",
    )
    NO_CURRENT_CONTEXT = (
        "NoCurrentContext",
        Shown.RECORD,
        "The kubeconfig names no current context.",
        "It downloads the file again with growing pauses.",
        "Download the kubeconfig from Palette and report it to Spectro Cloud.",
    )
    NO_CREDENTIAL = (
        "NoCredential",
        Shown.RECORD,
        "The kubeconfig's user has neither a token nor a client certificate with its key.",
        "It downloads the file again with growing pauses.",
        "Use OIDC for the cluster, or look at why Palette's kubeconfig has no credential.",
    )
    BAD_CREDENTIAL = (
        "BadCredential",
        Shown.RECORD,
        "The token, the client certificate or the key in the kubeconfig cannot be used.",
        "It downloads the file again with growing pauses.",
        "Renew the cluster's certificates in Palette.",
    )
    BAD_CA = (
        "BadCA",
        Shown.RECORD,
        "The CA in the kubeconfig cannot be used.",
        "It downloads the file again with growing pauses.",
        "Renew the cluster's certificates in Palette, or give it a CA by a rule in `[defaults.trust]`.",
    )
    NOT_HTTPS = (
        "NotHttps",
        Shown.RECORD,
        "The server in the kubeconfig is not a plain https address.",
        "It downloads the file again with growing pauses and never connects without TLS.",
        "Correct the cluster's API endpoint.",
    )
    INSECURE_TLS = (
        "InsecureTLS",
        Shown.RECORD,
        "The kubeconfig asks to skip TLS verification, which palette-sync never does.",
        "It downloads the file again with growing pauses.",
        "Give the cluster a CA by a rule in `[defaults.trust]`, or renew its kubeconfig in Palette.",
    )
    EXEC_REFUSED = (
        "ExecRefused",
        Shown.RECORD,
        "The kubeconfig asks to run a program for the credential. palette-sync never runs one.",
        "It looks again when the cluster or the configuration changes, else every 6 hours.",
        "Use OIDC for the cluster, or Spectro Proxy if the cluster has it.",
    )
    NEEDS_AWS_CREDENTIALS = (
        "NeedsAwsCredentials",
        Shown.RECORD,
        "The kubeconfig of an EKS cluster asks to run a program for a token of AWS. palette-sync never runs one.",
        "It looks again when the cluster or the configuration changes, else every 6 hours.",
        "Configure `cloud.aws` for it, so that palette-sync gets the token itself; or use OIDC or Spectro Proxy.",
    )
    NEEDS_GOOGLE_CREDENTIALS = (
        "NeedsGoogleCredentials",
        Shown.RECORD,
        "The kubeconfig of a GKE cluster asks to run a program for a token of Google. palette-sync never runs one.",
        "It looks again when the cluster or the configuration changes, else every 6 hours.",
        "Configure `cloud.google` for it, so that palette-sync gets the token itself; or use OIDC or Spectro Proxy.",
    )
    NEEDS_AZURE_CREDENTIALS = (
        "NeedsAzureCredentials",
        Shown.RECORD,
        "The kubeconfig of an AKS cluster asks to run a program for a token of Entra ID. palette-sync never runs one.",
        "It looks again when the cluster or the configuration changes, else every 6 hours.",
        "Configure `cloud.azure` for it, so that palette-sync gets the token itself; or use OIDC or Spectro Proxy.",
    )
    CLOUD_CREDENTIALS_UNAVAILABLE = (
        "CloudCredentialsUnavailable",
        Shown.RECORD,
        "palette-sync is to get a token of the cloud for the cluster, and the cloud gave none.",
        "It tries again with growing pauses.",
        "The message says what failed; check the credentials that the daemon finds, its role and the network.",
    )
    CLOUD_SERVER_REFUSED = (
        "CloudServerRefused",
        Shown.RECORD,
        "The kubeconfig asks for a token of a cloud, but its server is not known to belong to a cluster of that cloud.",
        "It sends no token. It looks again when the cluster or the configuration changes, else every 6 hours.",
        "Check the server in the kubeconfig. If it is right, use OIDC or Spectro Proxy for the cluster.",
    )
    CLOUD_IDENTITY_REFUSED = (
        "CloudIdentityRefused",
        Shown.RECORD,
        "The cluster refused the token of the cloud identity that palette-sync used.",
        "It tries again with growing pauses.",
        "Give that identity access to the cluster: an access entry in EKS, a role in GKE or AKS.",
    )
    AUTH_PROVIDER_REFUSED = (
        "AuthProviderRefused",
        Shown.RECORD,
        "The kubeconfig names an auth-provider plugin. palette-sync never runs one.",
        "It looks again when the cluster or the configuration changes, else every 6 hours.",
        "Use OIDC for the cluster.",
    )
    FILE_PATH_REFUSED = (
        "FilePathRefused",
        Shown.RECORD,
        "The kubeconfig names a file. palette-sync reads inline data only.",
        "It downloads the file again with growing pauses.",
        "Look at why Palette's kubeconfig names a file.",
    )
    PROXY_REFUSED = (
        "ProxyRefused",
        Shown.RECORD,
        "The kubeconfig names a proxy-url. palette-sync does not use one.",
        "It downloads the file again with growing pauses.",
        "Make the API server reachable without that proxy.",
    )

    # -- the cluster does not do what is asked -----------------------------------------------------------------------
    UNREACHABLE = (
        "Unreachable",
        Shown.RECORD,
        "The API server did not answer.",
        "It tries again with growing pauses. Backstage goes on with a cluster whose token lives.",
        "Check the network path from the daemon to the server, or use Spectro Proxy.",
    )
    ADDRESS_REFUSED = (
        "AddressRefused",
        Shown.RECORD,
        "The API server's address is loopback, link-local or in `[network] deny`; palette-sync does not connect there.",
        "It tries again with growing pauses, and connects to no such address.",
        "Correct the cluster's API endpoint, or name its network in `[network] allow`.",
    )
    PROXY_ANSWERED = (
        "ProxyAnswered",
        Shown.RECORD,
        "A proxy in front of the API server answered in its place, for example Spectro Proxy while its tunnel is down.",
        "It tries again with growing pauses.",
        "Check the proxy and its connection to the cluster; the message names the request and the HTTP status.",
    )
    CERTIFICATE_REFUSED = (
        "CertificateRefused",
        Shown.RECORD,
        "The API server's certificate does not verify with the CA of the kubeconfig.",
        "It tries again with growing pauses, and never without verification.",
        "Renew the kubeconfig in Palette, or give the cluster a CA by a rule in `[defaults.trust]`.",
    )
    ADMIN_CREDENTIAL_REFUSED = (
        "AdminCredentialRefused",
        Shown.RECORD,
        "Palette's admin credential was refused by the API server: it has expired, or it was revoked.",
        "It downloads the file again with growing pauses.",
        "Renew the certificates in Palette; for EKS, GKE or AKS, whose tokens expire, configure `cloud`, or use OIDC.",
    )
    CHAIN_INCOMPLETE = (
        "ChainIncomplete",
        Shown.RECORD,
        "The known CA is no root, and the API server does not present the root, so that Backstage cannot verify it.",
        "It withholds the cluster, and tries again with growing pauses.",
        "Give the cluster its root CA by a rule in `[defaults.trust]`, or put the root into the kubeconfig.",
    )
    PLAIN_HTTP = (
        "PlainHttp",
        Shown.RECORD,
        "What listens at the API server's address answers in plain HTTP.",
        "It tries again with growing pauses, and never without TLS.",
        "Check the port in the kubeconfig, and whether a proxy before the API server ends TLS.",
    )
    OLD_TLS = (
        "OldTls",
        Shown.RECORD,
        "What listens at the API server's address speaks only TLS versions before 1.2.",
        "It tries again with growing pauses.",
        "Allow TLS 1.2 or 1.3 on the API server, or on the proxy before it.",
    )
    UNAUTHORIZED = (
        "Unauthorized",
        Shown.RECORD,
        "The API server refused a credential that it had accepted a moment before.",
        "It tries again with growing pauses.",
        "Check the API server's authentication if it lasts.",
    )
    FORBIDDEN = (
        "Forbidden",
        Shown.RECORD,
        "The admin credential of Palette's kubeconfig may not do what is needed.",
        "It tries again with growing pauses.",
        "The message names the request; give the credential that right, or lift the admission policy.",
    )
    NOT_FOUND = (
        "NotFound",
        Shown.RECORD,
        "The API server does not know what was asked for.",
        "It tries again with growing pauses.",
        "The message names the request.",
    )
    CONTENDED = (
        "Contended",
        Shown.RECORD,
        "Another writer changed the same objects at the same time, several times in a row.",
        "It tries again with growing pauses.",
        "Find who else writes these objects, for example a GitOps tool.",
    )
    INVALID = (
        "Invalid",
        Shown.RECORD,
        "The API server refused an object or a request as invalid.",
        "It tries again with growing pauses.",
        "The message has the server's words; an admission policy may need labels (`rbac.labels`).",
    )
    TOO_MANY_REQUESTS = (
        "TooManyRequests",
        Shown.RECORD,
        "The API server asked palette-sync to slow down.",
        "It tries again with growing pauses.",
    )
    SERVER_FAILURE = (
        "ServerFailure",
        Shown.RECORD,
        "The API server answered with an internal error.",
        "It tries again with growing pauses.",
        "Look at the health of the cluster's control plane if it lasts.",
    )
    MALFORMED = (
        "Malformed",
        Shown.RECORD,
        "The answer is not one that a Kubernetes API server gives.",
        "It tries again with growing pauses.",
        "Check what answers at the server's address.",
    )
    FAILED = (
        "Failed",
        Shown.RECORD,
        "A request to the API server failed in a way that has no reason of its own.",
        "It tries again with growing pauses.",
        "See the message.",
    )
    TOKEN_NOT_FILLED = (
        "TokenNotFilled",
        Shown.RECORD,
        'The API server did not write a token into its Secret in time (`token.source = "secret"`).',
        "It tries again with growing pauses.",
        'Check the cluster\'s controller manager, or use `token.source = "request"`.',
    )
    TOKENS_TOO_SHORT = (
        "TokensTooShort",
        Shown.RECORD,
        "The API server grants tokens that live for a shorter time than `token.shortest`.",
        "It tries again with growing pauses and never publishes such a token.",
        "Raise the longest life of tokens in the cluster (`--service-account-max-token-expiration`).",
    )
    TOKEN_REJECTED = (
        "TokenRejected",
        Shown.RECORD,
        "A token that was just issued is still refused after several seconds.",
        "It tries again with growing pauses and never publishes that token.",
        "Check the API server's token authentication (issuer, audiences, signing keys).",
    )
    ACCESS_DENIED = (
        "AccessDenied",
        Shown.RECORD,
        "The token works, but the rights that it should have do not take effect.",
        "It tries again with growing pauses.",
        "Look for an authorization webhook or policy that denies it.",
    )
    CONFLICT = (
        "Conflict",
        Shown.RECORD,
        "An object with the name of one of ours exists and belongs to somebody else.",
        "It writes nothing to the cluster, and looks again with growing pauses.",
        "Rename ours in `[rbac]`, or set `adopt`.",
    )
    NOT_REPAIRED = (
        "NotRepaired",
        Shown.RECORD,
        "The cluster still differs from the configuration after a repair.",
        "It tries again with growing pauses.",
        "Find who else writes these objects.",
    )
    SNAPSHOT_REFUSED = (
        "SnapshotRefused",
        Shown.RECORD | Shown.STATUS,
        "What was published before did not verify: a wrong seal key, or somebody changed Redis.",
        "It gives access again from scratch.",
        "Check who can write to Redis, and that all daemons have the same seal keys.",
    )
    INTERNAL_ERROR = (
        "InternalError",
        Shown.RECORD | Shown.PASS,
        "palette-sync has a bug.",
        "It tries again with growing pauses.",
        "The log has the traceback; please report it.",
    )
    UNKNOWN_REASON = (
        "UnknownReason",
        Shown.RECORD,
        "Another version of palette-sync wrote a reason that this version does not know.",
        "The next work on the cluster replaces it.",
        "Run the same version everywhere.",
    )

    # -- why a pass works on a cluster -------------------------------------------------------------------------------
    NEW = ("New", Shown.WORK, "The cluster is not published yet.", "It gives access and publishes it.")
    NO_ACCESS = ("NoAccess", Shown.WORK, "The cluster has no working access yet.", "It gives access.")
    MODE_CHANGED = (
        "ModeChanged",
        Shown.WORK,
        "The configuration moved the cluster to the other kind of authentication.",
        "It gives access in the new way.",
    )
    CONFIG_CHANGED = (
        "ConfigChanged",
        Shown.WORK,
        "The configured access differs from what the cluster was given.",
        "It brings the objects in line.",
    )
    TOKEN_DUE = ("TokenDue", Shown.WORK | Shown.ACTION, "The token reached its renewal time.", "It issues a new one.")
    TOKEN_LAPSED = (
        "TokenLapsed",
        Shown.RECORD | Shown.WORK | Shown.ACTION | Shown.STATUS,
        "The token expired before it could be renewed.",
        "It keeps trying; the next success brings the cluster back.",
        "The log says why the renewal failed.",
    )
    TOKEN_DEAD = (
        "TokenDead",
        Shown.WORK | Shown.ACTION,
        "The API server refuses the published token.",
        "It issues a new one, and verifies the tokens of the instance's other clusters within five minutes.",
        "Run `palette-sync resync` if the tokens of all clusters died, for example with a signing key.",
    )
    SERVER_REPLACED = (
        "ServerReplaced",
        Shown.ACTION,
        "Palette names another server, CA or server name for the cluster than the published one.",
        "It issues a new token there. The old one is never sent to another server.",
    )
    STATE_CHANGED = (
        "StateChanged",
        Shown.WORK,
        "Palette reports another state or health of the cluster.",
        "It verifies the access.",
    )
    OVERLAP_OVER = (
        "OverlapOver",
        Shown.WORK | Shown.ACTION,
        "A replaced Secret has reached its end.",
        "It deletes the Secret.",
    )
    RETRY_DUE = ("RetryDue", Shown.WORK, "The pause after a failure is over.", "It tries again.")
    VERIFY_DUE = ("VerifyDue", Shown.WORK, "The verification interval has passed.", "It verifies the access.")
    ISSUER_DUE = ("IssuerDue", Shown.WORK, "The metadata of the OIDC issuer has expired.", "It reads the metadata.")
    RESYNC = ("Resync", Shown.WORK, "An operator asked for a resync.", "It verifies the access.")
    ROTATION_ASKED = (
        "RotationAsked",
        Shown.WORK | Shown.ACTION,
        "An operator asked for a new token.",
        "It issues a token, publishes it, and with `--revoke` ends the former one after that.",
    )

    # -- why an object in a cluster is written -----------------------------------------------------------------------
    MISSING = ("Missing", Shown.ACTION, "The object does not exist.", "It creates the object.")
    ADOPTED = (
        "Adopted",
        Shown.ACTION,
        "The object exists, is not labelled as ours, and means the same.",
        "It labels the object as ours.",
    )
    ROLE_DRIFTED = ("RoleDrifted", Shown.ACTION, "The rules of the ClusterRole differ.", "It restores them.")
    ROLE_REF_CHANGED = (
        "RoleRefChanged",
        Shown.ACTION,
        "The ClusterRoleBinding refers to another role, which cannot be changed in place.",
        "It replaces the binding.",
    )
    SUBJECTS_DRIFTED = (
        "SubjectsDrifted",
        Shown.ACTION,
        "The subjects of the ClusterRoleBinding differ.",
        "It restores them.",
    )
    ACCOUNT_DRIFTED = (
        "AccountDrifted",
        Shown.ACTION,
        "The ServiceAccount mounts its token into pods.",
        "It turns that off.",
    )
    METADATA_DRIFTED = (
        "MetadataDrifted",
        Shown.ACTION,
        "A label or annotation that the object should have is missing or differs.",
        "It restores it. Labels and annotations of others stay.",
    )
    LEFT = (
        "Left",
        Shown.ACTION,
        "The cluster is not served with a service account any more.",
        "It deletes the Secrets behind its tokens, which revokes them.",
    )
    RELEASED = (
        "Released",
        Shown.ACTION,
        "`palette-sync release` leaves the cluster, and palette-sync made the object.",
        "It deletes the object.",
    )
    HANDED_BACK = (
        "HandedBack",
        Shown.ACTION,
        "`palette-sync release` leaves the cluster, and the object was there before, or holds what others made.",
        "It takes its labels off the object.",
    )
    SECRET_MISSING = (
        "SecretMissing",
        Shown.ACTION,
        "No Secret of ours can hold or bind the token.",
        "It creates one.",
    )

    # -- why a record changed, was dropped or was held back ----------------------------------------------------------
    PALETTE_CHANGED = (
        "PaletteChanged",
        Shown.CHANGE,
        "Palette reports other facts of the cluster.",
        "It publishes them.",
    )
    DISAPPEARED = ("Disappeared", Shown.CHANGE, "Palette does not list the cluster any more.", "It drops the record.")
    DELETING = ("Deleting", Shown.CHANGE, "Palette is deleting the cluster.", "It drops the record.")
    DELETED = ("Deleted", Shown.CHANGE, "Palette has deleted the cluster.", "It drops the record.")
    PROJECT_EXCLUDED = (
        "ProjectExcluded",
        Shown.CHANGE,
        "The cluster's project is not selected.",
        "It drops the record.",
    )
    TAG_EXCLUDED = ("TagExcluded", Shown.CHANGE, "A tag excludes the cluster.", "It drops the record.")
    TAG_NOT_INCLUDED = ("TagNotIncluded", Shown.CHANGE, "The cluster has no included tag.", "It drops the record.")
    TENANT_SCOPE_EXCLUDED = (
        "TenantScopeExcluded",
        Shown.CHANGE,
        "Tenant-scoped clusters are excluded.",
        "It drops the record.",
    )
    VIRTUAL_EXCLUDED = ("VirtualExcluded", Shown.CHANGE, "Virtual clusters are excluded.", "It drops the record.")
    IMPORTED_EXCLUDED = ("ImportedExcluded", Shown.CHANGE, "Imported clusters are excluded.", "It drops the record.")
    PROJECT_UNRESOLVED = (
        "ProjectUnresolved",
        Shown.CHANGE,
        "The project of the cluster is unknown, so the filters cannot be applied.",
        "It neither touches nor publishes the cluster.",
    )
    TOKEN_LEFT = (
        "TokenLeft",
        Shown.CHANGE,
        "A cluster is not served with a service account any more, and its token could not be revoked.",
        "Nothing more: it does not know the cluster any longer. The message says until when the token lives.",
        "Delete the Secrets that the message names in the cluster.",
    )
    NOT_LISTED = (
        "NotListed",
        Shown.CHANGE,
        "Palette does not list the cluster any more.",
        "The record stays until a second scheduled listing, at least `prune_confirm` after the first, confirms it.",
    )
    PRUNE_HELD = (
        "PruneHeld",
        Shown.CHANGE | Shown.STATUS,
        "Too many clusters disappeared at once: all of a scope, or more than 30 %.",
        "The records stay, verified and renewed, until an operator allows the drop or `prune_hold` has passed.",
        "Look at the clusters in Palette. Run `palette-sync resync --allow-prune` if they are really gone.",
    )
    ACCESS_LOST = (
        "AccessLost",
        Shown.CHANGE | Shown.STATUS,
        "Clusters disappeared together with their project, or with a permission: maybe the API key lost roles.",
        "The records stay, verified and renewed, until an operator allows the drop or `prune_hold` has passed.",
        "Give the key's user its roles back. Run `palette-sync resync --allow-prune` if the clusters are really gone.",
    )

    # -- why a pass ended without a result ---------------------------------------------------------------------------
    STORE_UNAVAILABLE = (
        "StoreUnavailable",
        Shown.PASS | Shown.STATUS,
        "Redis is down or does not accept writes.",
        "It keeps everything in memory and publishes once Redis is back.",
        "Bring Redis back.",
    )
    STORE_ERROR = (
        "StoreError",
        Shown.PASS,
        "Redis answered, but cannot be used as it must be.",
        "It tries again with growing pauses.",
        "`palette-sync check` says what is wrong.",
    )
    STORE_MISCONFIGURED = (
        "StoreMisconfigured",
        Shown.PASS,
        "A setting of `[redis]` cannot be used.",
        "Nothing.",
        "Correct the setting that the message names.",
    )
    FENCED = (
        "Fenced",
        Shown.PASS,
        "Another daemon took over the instance.",
        "It stops writing and stands by.",
    )
    VERSION_CONFLICT = (
        "VersionConflict",
        Shown.PASS,
        "The snapshot in Redis is not the one that this daemon wrote last.",
        "It reads the snapshot again under a new epoch.",
        "Check who else writes to Redis if it repeats.",
    )
    LEASE_HELD = ("LeaseHeld", Shown.PASS, "Another daemon leads the instance.", "It stands by.")
    LEASE_LOST = (
        "LeaseLost",
        Shown.PASS,
        "The lease could not be renewed in time.",
        "It stops writing and asks for the lease again.",
        "Check the latency of Redis if it repeats.",
    )

    # -- what the status reports as wrong besides single clusters ----------------------------------------------------
    CONFIG_REJECTED = (
        "ConfigRejected",
        Shown.STATUS,
        "The configuration was read again and is not valid.",
        "It goes on with the configuration that it read before. A restart would fail.",
        "Correct what the message names, run `palette-sync check`, then `palette-sync reload`.",
    )
    CONFIG_DIFFERS = (
        "ConfigDiffers",
        Shown.STATUS,
        "A process has an older configuration than the one that was loaded last.",
        "It leads only what no process with the newest configuration can lead.",
        "Give every process the same file, then run `palette-sync reload`. If the older one is right, reload it too.",
    )
    KEYS_DIFFER = (
        "KeysDiffer",
        Shown.STATUS,
        "A process has other seal keys than the process that leads, and cannot verify what that one publishes.",
        "It does not lead while another process can.",
        "Give every process the same seal keys, then send SIGHUP to it: it ignores requests that it cannot verify.",
    )
    STORE_REFILLED = (
        "StoreRefilled",
        Shown.STATUS,
        "Redis came back without what was published, or with something older.",
        "It published again what it remembered, under a new epoch, with the tokens that it remembered.",
        "Find out why Redis lost data: persistence, eviction, a restored dump, or a FLUSHALL. Nothing else is needed.",
    )
    INSTANCE_ORPHANED = (
        "InstanceOrphaned",
        Shown.STATUS,
        "An instance is published, but no longer configured.",
        "It leaves the records in Redis. Nobody renews their tokens, which lapse.",
        "Configure the instance again, or run `palette-sync forget` once nothing reads it (docs/operations.md).",
    )
    NOTHING_PUBLISHED = (
        "NothingPublished",
        Shown.STATUS,
        "No snapshot of the instance was published or read yet.",
        "It publishes the first snapshot in the first pass that can list Palette.",
        "See why the first pass fails: `palette-sync check`.",
    )
    NOBODY_LEADS = (
        "NobodyLeads",
        Shown.STATUS,
        "No daemon holds the lease of the instance.",
        "Nothing. The snapshot gets old and the tokens lapse.",
        "Start `palette-sync run`; if it runs, its log says why it does not lead.",
    )
    RUNNER_ENDED = (
        "RunnerEnded",
        Shown.STATUS,
        "The work on the instance has ended although the daemon runs.",
        "It reports itself as not live, so that a supervisor restarts it.",
        "Restart the daemon, and report the traceback in its log.",
    )
    LISTING_FAILED = (
        "ListingFailed",
        Shown.STATUS,
        "Palette could not be listed.",
        "It lists again at the next interval. All records stay, and tokens that are due are renewed.",
        "`palette-sync check` names what the API key or the network lacks; `palette-sync reload` reads a new key.",
    )
    CUT_OFF = (
        "CutOff",
        Shown.STATUS,
        "Palette does not answer this process, and for `step_back` no pass of the instance has succeeded.",
        "It hands over to a process that Palette answers. If no process gets an answer, it goes on leading and trying.",
        "Look at the network, DNS and proxy of this process. If all processes are cut off, look at Palette.",
    )
    SCOPE_STALE = (
        "ScopeStale",
        Shown.STATUS,
        "Some projects could not be listed.",
        "Their clusters stay as they were. It lists them again at the next interval.",
        "Give the API key access to these projects, or exclude them (`exclude_projects`).",
    )
    PASS_HANGS = (
        "PassHangs",
        Shown.STATUS,
        "A pass has been at work for longer than an hour.",
        "It goes on with the pass. No other pass of this instance begins meanwhile.",
        "See what it waits for: SIGUSR2 writes it to the log.",
    )
    RENEWAL_FAILING = (
        "RenewalFailing",
        Shown.STATUS,
        "Tokens have reached their renewal time, and their renewal fails.",
        "It tries again with growing pauses, and sooner while a token is about to lapse. The tokens work until then.",
        "The message of the cluster says why: `palette-sync show CLUSTER`.",
    )
    API_KEY_EXPIRES = (
        "ApiKeyExpires",
        Shown.STATUS,
        "The Palette API key expires soon, or has expired.",
        "It uses the key until Palette refuses it. Then nothing can be listed.",
        "Create a new key in Palette, replace the file of `api_key_file`, then run `palette-sync reload`.",
    )
