"""What Pod Security admits: the controls of the levels `baseline` and `restricted`.

Kubernetes, "Pod Security Standards", as of version 1.37. Admission looks at pods alone, so a RayJob
is accepted whose pods are refused later.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

Manifest = Mapping[str, Any]
Level = Literal["baseline", "restricted"]

LABEL = "pod-security.kubernetes.io/enforce"
"""The label by which a namespace enforces a level."""
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret", "image"),
}
"""The sources of volumes that `restricted` admits."""
CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
"""The capabilities that `baseline` lets a container add."""
SYSCTLS = {
    "kernel.shm_rmid_forced",
    *(f"net.ipv4.{name}" for name in ("ip_local_port_range", "ip_local_reserved_ports")),
    *(f"net.ipv4.{name}" for name in ("ip_unprivileged_port_start", "tcp_syncookies")),
    *("net.ipv4.ping_group_range", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout"),
    *("net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"),
    *("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
CONFINED = {"RuntimeDefault", "Localhost"}
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")


def refused(template: Manifest, level: Level) -> Iterator[str]:
    """What a level refuses of a pod, each as the field and its value."""
    pod = template["spec"]
    context = pod.get("securityContext") or {}
    yield from _pod(pod, context)
    yield from _contexts("spec.securityContext", context)
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    for name, value in annotations.items():
        apparmor = name.startswith("container.apparmor.security.beta.kubernetes.io/")
        if apparmor and value != "runtime/default" and not value.startswith("localhost/"):
            yield f"metadata.annotations.{name}: {value}"
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(kind) or []:
            where = f"spec.{kind}.{container['name']}"
            own = container.get("securityContext") or {}
            yield from _baseline(where, container, own)
            yield from _contexts(f"{where}.securityContext", own)
            if level == "restricted":
                yield from _restricted(where, own, {**context, **own})
    if level == "restricted":
        if context.get("runAsUser") == 0:
            yield "spec.securityContext.runAsUser: 0"
        for volume in pod.get("volumes") or []:
            for source in sorted(set(volume) - VOLUMES - {"name", "hostPath"}):
                yield f"spec.volumes.{volume['name']}.{source}"


def _pod(pod: Manifest, context: Manifest) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"spec.{name}: true"
    for volume in pod.get("volumes") or []:
        if volume.get("hostPath"):
            yield f"spec.volumes.{volume['name']}.hostPath"
    for each in context.get("sysctls") or []:
        if each["name"] not in SYSCTLS:
            yield f"spec.securityContext.sysctls: {each['name']}"


def _contexts(where: str, context: Manifest) -> Iterator[str]:
    """What `baseline` refuses in the security context of a pod as in that of a container."""
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{where}.windowsOptions.hostProcess: true"
    options = context.get("seLinuxOptions") or {}
    if options.get("user") or options.get("role") or options.get("type", "") not in SELINUX:
        yield f"{where}.seLinuxOptions"
    for name in ("seccompProfile", "appArmorProfile"):
        if (context.get(name) or {}).get("type", "RuntimeDefault") not in CONFINED:
            yield f"{where}.{name}.type: {context[name]['type']}"


def _baseline(where: str, container: Manifest, context: Manifest) -> Iterator[str]:
    if context.get("privileged"):
        yield f"{where}.securityContext.privileged: true"
    if context.get("procMount", "Default") != "Default":
        yield f"{where}.securityContext.procMount: {context['procMount']}"
    added = set((context.get("capabilities") or {}).get("add") or [])
    if added - CAPABILITIES:
        more = ", ".join(sorted(added - CAPABILITIES))
        yield f"{where}.securityContext.capabilities.add: {more}"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"{where}.ports.hostPort: {port['hostPort']}"
    lifecycle = container.get("lifecycle") or {}
    handlers = {name: container.get(name) for name in HANDLERS}
    handlers |= {f"lifecycle.{name}": lifecycle.get(name) for name in ("postStart", "preStop")}
    for name, handler in handlers.items():
        for way in ("httpGet", "tcpSocket"):
            if ((handler or {}).get(way) or {}).get("host"):
                yield f"{where}.{name}.{way}.host"


def _restricted(where: str, own: Manifest, both: Manifest) -> Iterator[str]:
    """What `restricted` demands of a container; `both` has the pod's context beneath its own."""
    capabilities = own.get("capabilities") or {}
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{where}.securityContext.allowPrivilegeEscalation, which must be false"
    if "ALL" not in (capabilities.get("drop") or []):
        yield f"{where}.securityContext.capabilities.drop, which must have ALL"
    if more := set(capabilities.get("add") or []) & CAPABILITIES - {"NET_BIND_SERVICE"}:
        yield f"{where}.securityContext.capabilities.add: {', '.join(sorted(more))}"
    if both.get("runAsNonRoot") is not True:
        yield f"{where}.securityContext.runAsNonRoot, which must be true"
    if own.get("runAsUser") == 0:
        yield f"{where}.securityContext.runAsUser: 0"
    if (both.get("seccompProfile") or {}).get("type") not in {*CONFINED, "Unconfined"}:
        yield f"{where}.securityContext.seccompProfile, which must be RuntimeDefault or Localhost"
