"""The compose files as YAML: the CPU one stands alone, the GPU one adds a device. Usage: compose_files.py FOLDER"""

import os
import sys

import yaml

folder = sys.argv[1]
with open(os.path.join(folder, "compose.yaml")) as file:
    cpu = yaml.safe_load(file)["services"]["thanosql"]
with open(os.path.join(folder, "compose.gpu.yaml")) as file:
    gpu = yaml.safe_load(file)["services"]["thanosql"]

assert os.path.isfile(os.path.join(folder, cpu["build"]["context"], cpu["build"]["dockerfile"])), cpu["build"]
assert all(port.startswith("127.0.0.1:") for port in cpu["ports"]), "only this machine may connect without TLS"
assert any(volume.endswith(":/data") for volume in cpu["volumes"]), cpu["volumes"]
assert any(volume.endswith(":/var/lib/thanosql") for volume in cpu["volumes"]), cpu["volumes"]
assert "THANOSQL_USERS" in cpu["environment"]
devices = gpu["deploy"]["resources"]["reservations"]["devices"]
assert devices[0]["driver"] == "nvidia" and "gpu" in devices[0]["capabilities"], devices
assert "graphics" in gpu["environment"]["NVIDIA_DRIVER_CAPABILITIES"], "Vulkan needs it"
print("all checks passed")
