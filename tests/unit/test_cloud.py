"""Clusters whose kubeconfig asks to run a program: which cluster is meant, who gets a token, and where it may go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import TEAM_B, access, cluster, record
from palette_sync.core.cloud import (
    NEEDS,
    Cloud,
    CloudCluster,
    CloudPolicy,
    CloudRule,
    Identity,
    cluster_at,
    eks_region,
    recognise,
    refusal,
)
from palette_sync.core.model import AccessState, Server
from palette_sync.core.reasons import Reason
from palette_sync.core.select import ClusterGlobs
from unit.test_policy import POLICY

EKS = CloudCluster(Cloud.AWS, "shop")
AKS = CloudCluster(Cloud.AZURE)
GKE = CloudCluster(Cloud.GOOGLE, "shop", "acme-prod", "europe-west3")
EKS_URL = "https://0123456789ABCDEF.gr7.eu-central-1.eks.amazonaws.com"
AKS_URL = "https://shop-dns-1a2b3c.hcp.westeurope.azmk8s.io:443"


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        pytest.param("aws-iam-authenticator", ["token", "-i", "shop"], EKS, id="the short option"),
        pytest.param("aws-iam-authenticator", ["token", "--cluster-id=shop"], EKS, id="a value after an equals sign"),
        pytest.param("/usr/local/bin/aws-iam-authenticator", ["token", "-i", "shop"], EKS, id="a path"),
        pytest.param("C:\\tools\\aws-iam-authenticator.exe", ["token", "-i", "shop"], EKS, id="a path of Windows"),
        pytest.param(
            "aws", ["--region", "eu-central-1", "eks", "get-token", "--cluster-name", "shop"], EKS, id="the AWS client"
        ),
        pytest.param("aws", ["eks", "get-token"], CloudCluster(Cloud.AWS), id="no name"),
        pytest.param("aws", ["eks", "get-token", "--cluster-name"], CloudCluster(Cloud.AWS), id="no value"),
        pytest.param("aws", ["eks", "get-token", "--cluster-name", "a b"], CloudCluster(Cloud.AWS), id="a bad name"),
        pytest.param("gke-gcloud-auth-plugin", [], GKE, id="Google's plugin"),
        pytest.param("gcloud", ["config", "config-helper", "--format=json"], GKE, id="Google's client"),
        pytest.param("kubelogin", ["get-token", "--server-id", "x"], AKS, id="Azure's kubelogin"),
        pytest.param("kubelogin", ["get-token", "--oidc-issuer-url=https://a.example"], None, id="the other kubelogin"),
        pytest.param("kubectl", ["oidc-login", "get-token"], None, id="OIDC through kubectl"),
        pytest.param("aws", ["s3", "ls"], None, id="another command of the AWS client"),
        pytest.param("aws-iam-authenticator", ["verify"], None, id="another command of the authenticator"),
        pytest.param("gcloud", ["info"], None, id="another command of Google's client"),
        pytest.param("kubelogin", ["remove-tokens"], None, id="another command of kubelogin"),
        pytest.param("", [], None, id="nothing"),
        pytest.param("curl", ["https://collect.example"], None, id="an unknown program"),
    ],
)
def test_an_authenticator_is_known_by_its_command_and_arguments(
    command: str, args: list[str], expected: CloudCluster | None
) -> None:
    assert recognise(command, args, "gke_acme-prod_europe-west3_shop") == expected


@pytest.mark.parametrize("entry", ["", "kubernetes", "gke_acme-prod_shop", "gke_acme/../x_europe-west3_shop"])
def test_a_gke_cluster_is_known_by_the_name_of_its_entry_only(entry: str) -> None:
    assert recognise("gke-gcloud-auth-plugin", [], entry) == CloudCluster(Cloud.GOOGLE)


@pytest.mark.parametrize(
    ("url", "entry", "expected"),
    [
        pytest.param(EKS_URL, "shop", EKS, id="EKS"),
        pytest.param(EKS_URL, "arn:aws:eks:eu-central-1:123456789012:cluster/shop", EKS, id="EKS, by ARN"),
        pytest.param(AKS_URL, "kubernetes", AKS, id="AKS"),
        pytest.param("https://34.1.2.3", "gke_acme-prod_europe-west3_shop", GKE, id="GKE"),
        pytest.param("https://34.1.2.3", "kubernetes", None, id="any other"),
    ],
)
def test_a_cluster_whose_token_expired_is_known_by_its_address(
    url: str, entry: str, expected: CloudCluster | None
) -> None:
    assert cluster_at(Server(url), entry) == expected


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (EKS_URL, "eu-central-1"),
        (f"{EKS_URL}:443", "eu-central-1"),
        ("https://0A.sk1.us-gov-west-1.eks.amazonaws.com", "us-gov-west-1"),
        ("https://0A.yl4.cn-north-1.eks.amazonaws.com.cn", "cn-north-1"),
        ("https://0A.gr7.ap-southeast-2.eks.amazonaws.com", "ap-southeast-2"),
    ],
)
def test_the_region_of_an_eks_cluster_is_that_of_its_address(url: str, region: str) -> None:
    assert eks_region(Server(url)) == region


# What a Palette that lies may name so that somebody else gets the token.
NOT_OF_THE_CLOUD = [
    "https://collect.example",
    "https://0A.gr7.eu-central-1.{domain}.collect.example",
    "https://collect.example/.gr7.eu-central-1.{domain}",
    "https://collect.example#.gr7.eu-central-1.{domain}",
    "https://collect.example?.gr7.eu-central-1.{domain}",
    "https://collect.example\\.gr7.eu-central-1.{domain}",
    "https://collect.example@0A.gr7.eu-central-1.{domain}",
    "https://0A.gr7.eu-central-1.{domain}@collect.example",
    "https://0A.gr7.eu-central-1.{domain}:443@collect.example",
    "https://0A.gr7.eu-central-1.{domain}.",
    "https://0A.gr7.eu-central-1.{domain}/proxy",
    "https://0A.gr7.eu-central-1.{domain}:4430000",
    "https://0A.gr7.eu-central-1.x{domain}",
    "https://0A.gr7.eu-central-1\u3002{domain}",
    "https://0A.gr7.eu-central-1.{domain}\n.collect.example",
    "https://.{domain}",
    "https://{domain}",
    "http://0A.gr7.eu-central-1.{domain}",
]


@pytest.mark.parametrize("form", NOT_OF_THE_CLOUD)
@pytest.mark.parametrize(
    ("asked", "domain"), [pytest.param(EKS, "eks.amazonaws.com", id="EKS"), pytest.param(AKS, "azmk8s.io", id="AKS")]
)
def test_no_token_is_sent_to_a_server_that_only_looks_like_one_of_the_cloud(
    asked: CloudCluster, domain: str, form: str
) -> None:
    assert refusal(asked, Server(form.format(domain=domain))) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://0A.yl4.cn-north-1.eks.amazonaws.com",
        "https://0A.gr7.eu-central-1.eks.amazonaws.com.cn",
        "https://0A.gr7.eks.amazonaws.com",
    ],
)
def test_a_region_in_the_wrong_domain_gets_no_token(url: str) -> None:
    assert refusal(EKS, Server(url)) is not None


@pytest.mark.parametrize(("asked", "url"), [(EKS, EKS_URL), (AKS, AKS_URL)])
def test_a_token_is_sent_to_the_cluster_under_its_own_name_only(asked: CloudCluster, url: str) -> None:
    assert refusal(asked, Server(url)) is None
    assert refusal(asked, Server(url, tls_server_name="collect.example")) is not None


@pytest.mark.parametrize("asked", [CloudCluster(Cloud.AWS), CloudCluster(Cloud.GOOGLE)])
def test_a_cluster_without_a_name_gets_no_token(asked: CloudCluster) -> None:
    assert "does not name" in str(refusal(asked, Server(EKS_URL)))


def test_the_first_rule_that_matches_gives_the_identity() -> None:
    retail, other = Identity("arn:aws:iam::123456789012:role/retail"), Identity()
    policy = CloudPolicy(
        aws=(
            CloudRule(retail, ClusterGlobs(project="team-b")),
            CloudRule(other, ClusterGlobs(cluster="web-*", tag="cloud:aws")),
        )
    )

    assert policy.identity_of(Cloud.AWS, cluster(project=TEAM_B)) == retail
    assert policy.identity_of(Cloud.AWS, cluster(name="web-1", tags=("cloud:aws",))) == other
    assert policy.identity_of(Cloud.AWS, cluster(name="web-1")) is None
    assert policy.identity_of(Cloud.AZURE, cluster(project=TEAM_B)) is None


EVERY = ClusterGlobs()
AWS_ON = CloudPolicy(aws=(CloudRule(Identity(), EVERY),))


@pytest.mark.parametrize("reason", [*NEEDS.values(), Reason.CLOUD_IDENTITY_REFUSED, Reason.ADMIN_CREDENTIAL_REFUSED])
def test_a_change_of_the_cloud_configuration_shows_in_the_fingerprint_of_a_cluster_that_waits_for_it(
    reason: Reason,
) -> None:
    waiting = record(access=access(AccessState.FAILED, reason))
    with_role = CloudPolicy(aws=(CloudRule(Identity("arn:aws:iam::123456789012:role/x"), EVERY),))

    found = {
        replace(POLICY, cloud=cloud).with_cloud("v2:abc", cluster(), waiting)
        for cloud in (CloudPolicy(), AWS_ON, with_role, CloudPolicy(google=(CloudRule(Identity(), EVERY),)))
    }

    assert len(found) == 4
    assert {POLICY.with_cloud(one, cluster(), record()) for one in found} == {"v2:abc"}, "it is over"
    assert POLICY.with_cloud("v2:abc", cluster(), waiting) == "v2:abc"


def test_no_other_cluster_is_due_because_the_cloud_configuration_changed() -> None:
    policy = replace(POLICY, cloud=AWS_ON)
    failing = record(access=access(AccessState.FAILED, Reason.UNREACHABLE))

    assert {policy.with_cloud("v2:abc", cluster(), one) for one in (None, record(), failing)} == {"v2:abc"}
