"""Write the pack's subgraph blueprints: `python scripts/make_blueprints.py [FOLDER]`.

A blueprint is a saved workflow whose only node is a subgraph. ComfyUI lists those in a pack's `subgraphs` folder among
its nodes, under the file's name; dropped, it is one node with a whole graph inside, which can be opened and unpacked.
Standard library only. The same call writes the same bytes. ASCII only: ComfyUI 0.3.75 reads such files in whatever
encoding the machine prefers.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import make_workflows as flows
from layout import replacing

FOLDER = Path(__file__).resolve().parent.parent / "subgraphs"
# How the page numbers the two ends of a subgraph, which are no nodes.
_INPUT, _OUTPUT = -10, -20

Json = dict[str, Any]


class Port(NamedTuple):
    """An end of a subgraph: its name outside, and the node and socket inside that it stands for."""

    name: str
    node: int
    socket: str


class Blueprint(NamedTuple):
    """A subgraph and how it looks from outside: its sockets, and the inner widgets shown on it, in order."""

    name: str
    description: str
    graph: flows.Graph
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    widgets: Sequence[tuple[int, str]]
    size: tuple[int, int]

    def save(self) -> Json:
        """Return the workflow that holds it, in the page's format 0.4."""
        inside, unique = self.graph.save(), f"scp-diff/subgraphs/{self.name}"
        number = str(uuid.uuid5(uuid.NAMESPACE_URL, unique))
        inputs, outputs = self._ends(inside, number)
        node = {
            "id": 1,
            "type": number,
            "pos": [0, 0],
            "size": list(self.size),
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [{"localized_name": one["name"], "name": one["name"], "type": one["type"]} for one in inputs],
            "outputs": [{"localized_name": one["name"], "name": one["name"], "type": one["type"]} for one in outputs],
            "title": self.name,
            "properties": {"proxyWidgets": [[str(inner), widget] for inner, widget in self.widgets]},
            "widgets_values": [],
        }
        for slot in node["inputs"]:
            slot["link"] = None
        for slot in node["outputs"]:
            slot["links"] = None
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, unique + "/root")),
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [node],
            "links": [],
            "groups": [],
            "definitions": {"subgraphs": [self._definition(inside, number, inputs, outputs)]},
            "config": {},
            "extra": {"BlueprintDescription": self.description, "workflowRendererVersion": "LG"},
            "version": 0.4,
        }

    def _ends(self, inside: Json, number: str) -> tuple[list[Json], list[Json]]:
        """Lead links to and from the subgraph's ends; return both ends' sockets."""
        nodes = {node["id"]: node for node in inside["nodes"]}

        def end(kind: str, place: int, port: Port, way: str) -> tuple[Json, int, int]:
            (slot,) = (place for place, slot in enumerate(nodes[port.node][way]) if slot["name"] == port.socket)
            inside["last_link_id"] += 1
            link = inside["last_link_id"]
            told = {
                "id": str(uuid.uuid5(uuid.UUID(number), f"{kind}/{port.name}")),
                "name": port.name,
                "type": nodes[port.node][way][slot]["type"],
                "linkIds": [link],
                "localized_name": port.name,
                "pos": [0, 20 * place],
            }
            return told, slot, link

        inputs, outputs = [], []
        for place, port in enumerate(self.inputs):
            told, slot, link = end("input", place, port, "inputs")
            nodes[port.node]["inputs"][slot]["link"] = link
            inside["links"].append([link, _INPUT, place, port.node, slot, told["type"]])
            inputs.append(told)
        for place, port in enumerate(self.outputs):
            told, slot, link = end("output", place, port, "outputs")
            nodes[port.node]["outputs"][slot]["links"] = [*(nodes[port.node]["outputs"][slot]["links"] or ()), link]
            inside["links"].append([link, port.node, slot, _OUTPUT, place, told["type"]])
            outputs.append(told)
        return inputs, outputs

    def _definition(self, inside: Json, number: str, inputs: list[Json], outputs: list[Json]) -> Json:
        boxes = [(*node["pos"], *node["size"]) for node in inside["nodes"]]
        left, right = min(box[0] for box in boxes), max(box[0] + box[2] for box in boxes)
        parents = {bent["id"]: bent["parentId"] for bent in inside["extra"].get("linkExtensions", ())}
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = [dict(zip(names, link, strict=True)) for link in inside["links"]]
        for link in links:
            if link["id"] in parents:
                link["parentId"] = parents[link["id"]]
        bends = inside["extra"].get("reroutes", [])
        return {
            "id": number,
            "version": 1,
            "state": {
                "lastGroupId": len(inside["groups"]),
                "lastNodeId": inside["last_node_id"],
                "lastLinkId": inside["last_link_id"],
                "lastRerouteId": len(bends),
            },
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": _INPUT, "bounding": [left - 220, 0, 120, 40 + 20 * len(inputs)]},
            "outputNode": {"id": _OUTPUT, "bounding": [right + 100, 0, 120, 40 + 20 * len(outputs)]},
            "inputs": inputs,
            "outputs": outputs,
            "widgets": [],
            "nodes": inside["nodes"],
            "groups": inside["groups"],
            "links": links,
            "reroutes": bends,
            "extra": {"workflowRendererVersion": "LG"},
        }


def segmentation_to_image() -> Blueprint:
    """Return the common chain: labels, hint and prior, sampler, with its loaders, as one node."""
    example = next(one for one in flows.EXAMPLES if one.name == "minimal")
    graph = flows.Graph("segmentation-to-image")
    labels, read = flows.read_labels(graph, example)
    ends = flows.controlled(graph, example, labels)
    latent, start = flows.started(graph, example, ends)
    sampler, decode = flows.decoded(graph, example, ends, latent, start)
    graph.group("1 Segmentation", read)
    graph.group("4 Sample", [sampler, decode])
    statistics = graph.first("SCPLoadStatistics")
    return Blueprint(
        "Segmentation to Image (SCP-Diff)",
        "A picture from a segmentation image: SCP-Diff's prior, its ControlNet and the sampler in one node. Wire a "
        "segmentation image in and Save Image behind it, and choose the three files. Open it to see how it is wired.",
        graph,
        inputs=[Port("segmentation", labels, "image")],
        outputs=[Port("image", decode, "IMAGE"), Port("latent", sampler, "LATENT")],
        widgets=[
            (ends.loader, "ckpt_name"),
            (graph.first("ControlNetLoader"), "control_net_name"),
            (statistics, "statistics"),
            (labels, "palette"),
            (graph.first("CLIPTextEncode"), "text"),
            (latent, "seed"),
            (latent, "control_after_generate"),
            (latent, "class_strength"),
            (start, "timestep"),
            (sampler, "cfg"),
        ],
        size=(420, 460),
    )


def main(folder: Path) -> None:
    """Write every blueprint into a folder."""
    for blueprint in (segmentation_to_image(),):
        path = folder / f"{blueprint.name}.json"
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(blueprint.save(), indent=1) + "\n", encoding="ascii")
        print(path)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("usage: make_blueprints.py [FOLDER]")
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else FOLDER)
