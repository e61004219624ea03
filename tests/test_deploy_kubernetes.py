"""The manifests in `deploy/kubernetes` fit each other."""

from intents.formats import load_faq
from tests.deploy_files import DEPLOY, kubernetes, pods


def test_pods_are_confined() -> None:
    """Pods run as the images' user and no other, write to nothing of their own, and get no variables of Services."""
    assert len(pods()) == 2
    for pod in pods():
        assert pod["enableServiceLinks"] is pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (10001, 10001)
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {mount["name"] for mount in container["volumeMounts"]} <= {v["name"] for v in pod["volumes"]}
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}  # noqa: S108 in the pod


def test_manifests_agree() -> None:
    """What names something else names what is there: volumes, labels, the scaled Deployment."""
    (server,) = kubernetes("Deployment")
    labels = server["spec"]["template"]["metadata"]["labels"]
    (disruption,), (service,), (scaler,) = map(
        kubernetes, ("PodDisruptionBudget", "Service", "HorizontalPodAutoscaler")
    )
    assert server["spec"]["selector"]["matchLabels"] == labels
    assert disruption["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == server["metadata"]["name"]
    assert "replicas" not in server["spec"]
    (job,) = kubernetes("Job")
    known = [labels, job["spec"]["template"]["metadata"]["labels"]]
    assert [part["spec"]["podSelector"]["matchLabels"] for part in kubernetes("NetworkPolicy")] == known
    (claim,) = kubernetes("PersistentVolumeClaim")
    for pod in pods():
        claimed = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
        assert claimed == [claim["metadata"]["name"]]
    mounts = {m["name"]: m for m in server["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["faqwire"]["readOnly"], "servers only read the index"
    load_faq(DEPLOY / "kubernetes" / "index" / "faq.yaml")
