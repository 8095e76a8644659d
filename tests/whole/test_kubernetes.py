"""The files for Kubernetes: built as docs/deploy.md says, they fit its schemas, and each process would start."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from api.app import CONNECTIONS
from api.document import FILE as OPENAPI
from api.metrics import FIGURES
from catalogue.unsafe_settings import UnsafeSettings
from config import settings as settings_module
from config.settings import Settings, load
from devstack.stack import CHECKOUT
from tests.programs import need
from tests.whole.compose import services
from worker import runtime

FOLDER = CHECKOUT / "deploy" / "kubernetes"
VERSIONS = ("1.31", "1.37")
"""The oldest and the newest that the files are checked for."""
COMPONENTS = {"api", "worker", "notifications", "connectors", "migrate"}
OWN = {"api": {"lockbox_metrics_token"}, "notifications": {"lockbox_smtp_url"}}
"""What a process is given beyond what docker-compose.yml gives it."""
PUBLIC, CLUSTER, METADATA = "93.184.216.34", "10.1.2.3", "169.254.169.254"


@dataclass(frozen=True)
class Built:
    """What kustomize built from the files, and the folder of the secrets that it used."""

    documents: list[dict[str, Any]]
    secrets: Path

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        return {document["metadata"]["name"]: document for document in self.documents if document["kind"] == kind}

    def pods(self) -> dict[str, dict[str, Any]]:
        owners = [*self.of("Deployment").values(), *self.of("Job").values()]
        templates = [owner["spec"]["template"] for owner in owners]
        return {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in templates}

    def container(self, component: str) -> dict[str, Any]:
        (found,) = self.pods()[component]["spec"]["containers"]
        return dict(found)

    def files(self, component: str, path: str) -> dict[str, str]:
        """Return the files of secrets or settings that a container finds under a path."""
        volumes = {pod["name"]: pod for pod in self.pods()[component]["spec"]["volumes"]}
        (mount,) = [one for one in self.container(component)["volumeMounts"] if one["mountPath"] == path]
        volume = volumes[mount["name"]]
        if "secret" in volume:
            held = self.of("Secret")[volume["secret"]["secretName"]]["data"]
            return {name: base64.b64decode(value).decode() for name, value in held.items()}
        return dict(self.of("ConfigMap")[volume["configMap"]["name"]]["data"])

    def environment(self, component: str) -> dict[str, str]:
        container, maps = self.container(component), self.of("ConfigMap")
        found: dict[str, str] = {}
        for source in container["envFrom"]:
            found |= maps[source["configMapRef"]["name"]]["data"]
        return found | {one["name"]: one["value"] for one in container.get("env", ())}


def kustomized(folder: Path) -> list[dict[str, Any]]:
    ran = subprocess.run(
        [need("kustomize"), "build", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "deprecated" not in ran.stderr.lower()
    return list(YAML(typ="safe", pure=True).load_all(ran.stdout))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An installation with the connector worker, made as the page says."""
    place = tmp_path_factory.mktemp("kubernetes")
    shutil.copytree(FOLDER, place / "kubernetes")
    mine = place / "kubernetes" / "mine"
    shutil.copytree(FOLDER / "example", mine)
    shutil.copy(CHECKOUT / "deploy" / "catalogue.yaml", mine)
    named = {
        "LOCKBOX_POSTGRES": "postgres.internal:5432",
        "LOCKBOX_REDIS": "valkey.internal:6379",
        "LOCKBOX_AUDIT_NAME": "lockbox.vendor.example",
    }
    make = [CHECKOUT / "deploy" / "compose" / "secrets", mine / "secrets"]
    subprocess.run(make, env=os.environ | named, capture_output=True, timeout=60, check=True)
    (mine / "secrets" / "lockbox_smtp_url").write_text("smtps://lockbox:secret@relay.vendor.example:465")
    (mine / "secrets" / "lockbox_metrics_token").write_text("a-token-of-forty-hexadecimal-digits-or-so")
    (mine / "targets").mkdir()
    (mine / "targets" / "orders").write_text("postgresql://owner:secret@orders.internal/orders")
    written = mine / "kustomization.yaml"
    written.write_text(re.sub(r"^( *)# (?=components:|  |- name:)", r"\1", written.read_text(), flags=re.MULTILINE))
    return Built(kustomized(mine), mine / "secrets")


def test_the_kubernetes_base_is_complete_without_an_overlay() -> None:
    kinds = [one["kind"] for one in kustomized(FOLDER / "base")]

    assert {kind: kinds.count(kind) for kind in ("Deployment", "Job", "HorizontalPodAutoscaler", "Secret")} == {
        "Deployment": 3,
        "Job": 1,
        "HorizontalPodAutoscaler": 3,
        "Secret": 0,
    }


def test_the_kubernetes_example_builds_without_connectors(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.secrets.parent.parent, tmp_path / "kubernetes")
    mine = tmp_path / "kubernetes" / "mine"
    shutil.copy(FOLDER / "example" / "kustomization.yaml", mine)

    made = Built(kustomized(mine), built.secrets)

    assert made.pods().keys() == COMPONENTS - {"connectors"}
    assert built.pods().keys() == COMPONENTS


@pytest.mark.far
@pytest.mark.parametrize("version", VERSIONS)
def test_every_kubernetes_manifest_fits_the_schemas(built: Built, version: str) -> None:
    for document in built.documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_an_unknown_field_of_a_kubernetes_manifest_is_reported(built: Built) -> None:
    wrong = json.loads(json.dumps(built.of("Deployment")["lockbox-api"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.far
def test_every_kubernetes_pod_meets_the_restricted_standard(built: Built) -> None:
    (namespace,) = built.of("Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {document["metadata"].get("namespace", "lockbox") for document in built.documents} == {"lockbox"}

    for component, pod in built.pods().items():
        spec, container = pod["spec"], built.container(component)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert {kind for volume in spec["volumes"] for kind in volume} <= {
            "name",
            "secret",
            "configMap",
            "emptyDir",
            "persistentVolumeClaim",
        }


def test_no_setting_comes_from_kubernetes_service_variables(built: Built) -> None:
    assert any(name.startswith("lockbox-") for name in built.of("Service"))
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in built.pods().values())


def test_all_kubernetes_containers_have_limits_and_use_the_same_image(built: Built) -> None:
    images = {built.container(component)["image"] for component in COMPONENTS}

    assert images == {"registry.vendor.example/lockbox:0.2.0"}
    for component in COMPONENTS:
        resources = built.container(component)["resources"]
        assert {"cpu", "memory"} == resources["requests"].keys()
        assert "memory" in resources["limits"]


def test_every_process_in_kubernetes_runs_the_command_of_compose(built: Built) -> None:
    for component in COMPONENTS:
        service = services()[component]
        assert built.container(component)["command"] == service["command"]
        if component in {"worker", "notifications", "connectors"}:
            probe = built.container(component)["readinessProbe"]["exec"]["command"]
            assert ["CMD", *probe] == service["healthcheck"]["test"]
            assert "livenessProbe" not in built.container(component), "without Redis a worker works on"
            assert built.environment(component)["REMAP_SIGTERM"] == "SIGQUIT"


def test_the_kubernetes_probes_of_an_api_pod_are_existing_routes(built: Built) -> None:
    container = built.container("api")
    (port,) = container["ports"]
    (service,) = built.of("Service").values()
    (ingress,) = built.of("Ingress").values()
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]

    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in json.loads(OPENAPI.read_text())["paths"]
        assert container[probe]["httpGet"]["port"] == port["name"]
    assert container["command"][-1] == str(port["containerPort"])
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": port["name"]}}
    assert service["spec"]["selector"].items() <= built.pods()["api"]["metadata"]["labels"].items()


def test_the_grace_period_in_kubernetes_covers_the_soft_shutdown(built: Built) -> None:
    soft = float(str(Settings.model_fields["shutdown_seconds"].default))

    for component in COMPONENTS - {"migrate"}:
        pause = built.container(component).get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [0])
        assert built.pods()[component]["spec"]["terminationGracePeriodSeconds"] >= soft + 10 + float(pause[-1])


def test_no_kubernetes_pod_gets_an_unneeded_secret(built: Built) -> None:
    for component in COMPONENTS - {"migrate"}:
        expected = set(services()[component]["secrets"]) | OWN.get(component, set())
        assert built.files(component, "/run/secrets").keys() == expected
    assert built.files("migrate", "/run/secrets").keys() == {"lockbox_owner_database_url"}
    for pod in built.pods().values():
        secrets = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert {secret["defaultMode"] for secret in secrets} == {0o440}


def test_only_the_core_worker_in_kubernetes_writes_checkpoints(built: Built) -> None:
    writers = [
        component
        for component in COMPONENTS
        for mount in built.container(component)["volumeMounts"]
        if mount["name"] == "checkpoints" and not mount.get("readOnly")
    ]

    assert writers == ["worker"]
    assert built.of("PersistentVolumeClaim")["lockbox-checkpoints"]["spec"]["accessModes"] == ["ReadWriteMany"]


def set_up(built: Built, component: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the variables and files of a container."""
    spec, places = built.container(component), {}
    for number, mount in enumerate(spec["volumeMounts"]):
        folder = place / str(number)
        folder.mkdir()
        if mount["name"] == "tmp":
            continue
        places[mount["mountPath"]] = str(folder)
        if mount["name"] != "checkpoints":
            for name, text in built.files(component, mount["mountPath"]).items():
                (folder / name).write_text(text)
    for name, value in built.environment(component).items():
        for there, here in places.items():
            value = value.replace(there, here)  # noqa: PLW2901 - each place in turn
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(settings_module, "SECRETS_FOLDER", Path(places["/run/secrets"]))


NEEDS = {
    "api": ("database_url", "redis_url", "metrics_token"),
    "worker": ("worker_database_url", "redis_url"),
    "notifications": ("notifications_database_url", "redis_url", "smtp_url"),
    "connectors": ("connectors_database_url", "connector_targets", "redis_url"),
    "migrate": ("owner_database_url",),
}


@pytest.mark.parametrize("component", sorted(COMPONENTS))
def test_each_process_accepts_its_kubernetes_settings_in_production(
    built: Built, component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(built, component, tmp_path, monkeypatch)

    chosen = load()

    assert chosen.environment == "production"
    assert chosen.log_name == "lockbox.vendor.example"
    for field in NEEDS[component]:
        assert chosen.require(field)
    files = (
        *chosen.approval_key_files,
        *chosen.credential_key_files,
        *chosen.code_key_files,
        *chosen.mark_key_files,
        *chosen.audit_key_files,
    )
    assert all(file.is_file() for file in files)
    assert all(key.startswith("lockbox.vendor.example+") for key in chosen.audit_public_keys)
    named = {name.removeprefix("LOCKBOX_").lower() for name in built.environment(component)}
    assert named - {"remap_sigterm"} <= Settings.model_fields.keys()


def test_a_process_without_one_of_its_kubernetes_secrets_does_not_start(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(built, "api", tmp_path, monkeypatch)
    (settings_module.SECRETS_FOLDER / "lockbox_audit_public_keys").unlink()

    with pytest.raises(UnsafeSettings, match="LOCKBOX_AUDIT_PUBLIC_KEYS"):
        load()


def selected(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a selector of pods or namespaces matches labels."""
    expressions = selector.get("matchExpressions", ())
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def has_port(rule: Mapping[str, Any], port: int) -> bool:
    """Return whether a rule covers a TCP port."""
    return "ports" not in rule or any(
        one["protocol"] == "TCP" and one["port"] <= port <= one.get("endPort", one["port"]) for one in rule["ports"]
    )


def holds(blocks: Iterable[Mapping[str, Any]], address: str) -> bool:
    """Return whether one of these peers is a network that contains this address."""
    for peer in blocks:
        block = peer.get("ipBlock")
        if block and ip_address(address) in ip_network(block["cidr"]):
            return not any(ip_address(address) in ip_network(one) for one in block.get("except", ()))
    return False


def reaches(built: Built, component: str, address: str, port: int) -> bool:
    """Return whether the network policies let a pod of this component call that address."""
    labels = built.pods()[component]["metadata"]["labels"]
    rules = [
        rule
        for policy in built.of("NetworkPolicy").values()
        if selected(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("egress", ())
    ]
    return any(has_port(rule, port) and holds(rule["to"], address) for rule in rules)


def test_kubernetes_traffic_without_a_network_policy_is_refused(built: Built) -> None:
    nothing = built.of("NetworkPolicy")["lockbox-nothing"]["spec"]

    assert nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_each_process_in_kubernetes_reaches_exactly_what_it_needs(built: Built) -> None:
    for component in COMPONENTS:
        assert reaches(built, component, CLUSTER, 5432)
        assert reaches(built, component, CLUSTER, 6379) is (component != "migrate")
        assert reaches(built, component, PUBLIC, 443) is (component in {"api", "notifications", "connectors"})
        assert reaches(built, component, PUBLIC, 8443) is (component in {"notifications", "connectors"})
        assert reaches(built, component, PUBLIC, 587) is (component in {"notifications", "connectors"})
        assert reaches(built, component, PUBLIC, 80) is (component == "connectors")
        assert reaches(built, component, METADATA, 443) is (component == "connectors")
        assert reaches(built, component, CLUSTER, 443) is (component == "connectors")


def test_only_the_api_in_kubernetes_accepts_calls(built: Built) -> None:
    inbound = {
        name: policy["spec"] for name, policy in built.of("NetworkPolicy").items() if policy["spec"].get("ingress")
    }

    assert inbound.keys() == {"lockbox-api"}
    (rule,) = inbound["lockbox-api"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
    assert all("namespaceSelector" in peer and peer["namespaceSelector"]["matchLabels"] for peer in rule["from"])


def test_kubernetes_workers_scale_by_metrics_that_the_prometheus_adapter_provides() -> None:
    adapter = YAML(typ="safe", pure=True).load((FOLDER / "prometheus-adapter.yaml").read_text())["externalRules"]
    shown = {f"lockbox_{one.name}" for one in FIGURES}

    assert all({rule["seriesQuery"], *re.findall(r"lockbox_\w+", rule["metricsQuery"])} <= shown for rule in adapter)
    assert {rule["name"]["as"] for rule in adapter} == {
        metric["external"]["metric"]["name"]
        for one in kustomized(FOLDER / "base")
        if one["kind"] == "HorizontalPodAutoscaler"
        for metric in one["spec"]["metrics"]
        if metric["type"] == "External"
    }
    assert all(rule["resources"] == {"namespaced": False} for rule in adapter)


def test_the_queries_of_the_prometheus_adapter_are_valid_promql(tmp_path: Path) -> None:
    adapter = YAML(typ="safe", pure=True).load((FOLDER / "prometheus-adapter.yaml").read_text())["externalRules"]
    rules = [{"record": rule["name"]["as"], "expr": rule["metricsQuery"]} for rule in adapter]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"groups": [{"name": "adapter", "rules": rules}]}))

    checked = subprocess.run(
        [need("promtool"), "check", "rules", file], capture_output=True, text=True, timeout=60, check=False
    )

    assert f"SUCCESS: {len(rules)} rules found" in checked.stdout, checked.stdout + checked.stderr


def test_each_autoscaled_kubernetes_deployment_exists_without_a_fixed_number_of_replicas(built: Built) -> None:
    scaled = built.of("HorizontalPodAutoscaler")

    assert scaled.keys() == {"lockbox-api", "lockbox-worker", "lockbox-notifications"}
    for name, one in scaled.items():
        assert one["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert "replicas" not in built.of("Deployment")[name]["spec"], "each apply would undo what was scaled"
        assert one["spec"]["minReplicas"] >= 2
        assert name in built.of("PodDisruptionBudget")


def test_the_kubernetes_page_counts_the_connections_of_all_pods(built: Built) -> None:
    most = {name: one["spec"]["maxReplicas"] for name, one in built.of("HorizontalPodAutoscaler").items()}
    opened = most["lockbox-api"] * CONNECTIONS
    opened += most["lockbox-worker"] * runtime.CONNECTIONS["core"]
    opened += most["lockbox-notifications"] * runtime.CONNECTIONS["notifications"]

    assert f"{opened} connections" in (CHECKOUT / "docs" / "deploy.md").read_text()
