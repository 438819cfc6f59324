"""The notes of the example workflows: plain words for whoever opens the graph.

Markdown, as the page shows it. No code marks: Nodes 2.0 shows them blue on blue. Standard library only.
"""

from __future__ import annotations

KSAMPLER = """\
## How it is wired
**SCP Prior Latent** takes the place of Empty Latent Image. **SCP Denoise Start** tells KSampler the **denoise** \
and **steps** that start at the paper's timestep. Keep **scheduler** the same in both nodes.
"""

ADVANCED = """\
## How it is wired
The other wiring, for **KSampler (Advanced)**: **SCP Noised Latent** adds the noise, so **add_noise** stays \
**disable**; **SCP Denoise Start** gives **start_at_step**. Keep **timestep**, **steps** and **scheduler** the same in \
all of them. With the same seed the picture is the one KSampler gives.
"""


def change_first(look: str, size: str) -> str:
    return f"""\
## What to change first
1. **Load Image**: your segmentation picture. The legend in **SCP Labels From Image** shows what was read; if \
it is wrong, choose another **palette**.
2. **Prompt**: {look}.
3. **seed** of SCP Prior Latent: other colours and light. **seed** of the sampler: other details.
4. **timestep** of SCP Denoise Start: lower stays closer to the prior, higher gives the model more freedom \
(999: all of it).
5. **Size**: {size}
"""


def released(title: str, files: str, look: str, size: tuple[int, int], wiring: str) -> str:
    width, height = size
    sizes = (
        f"{width} x {height} is what the model was trained on. "
        "For another, set it in **Fit to Size** and in **SCP Prior Latent**."
    )
    return f"""\
# {title}, with the authors' weights
A photo from a segmentation picture. The sampler starts from what each class usually looks like at each place \
(**3 Start**), not from pure noise.

## Which file goes where
From **huggingface.co/c7w/SCP-Diff**, once:

| download | put it into | and run once |
|---|---|---|
| **{files}/{files}.ckpt** (13.7 GB) | models/checkpoints | SCP Convert Checkpoint |
| three **{files}/{files}_10000_..._mean_std.npy** | models/scp_statistics | SCP Convert Statistics |
| your segmentation picture, as **{files}_labels.png** | input | |

Press **R**. You have **{files}_checkpoint.safetensors**, **{files}_controlnet.safetensors** and \
**{files}.safetensors**, which the loaders here name. Both models come from the one .ckpt: its U-Net was trained too, \
so a stock Stable Diffusion 2.1 does not fit its ControlNet.

{change_first(look, sizes)}
{wiring}"""


MINIMAL = f"""\
# SCP-Diff: from a segmentation picture to an image
The sampler starts from what each class usually looks like at each place (**3 Start**), not from pure noise.

## Which file goes where
Choose your own in the loaders:

| here | folder | what it is |
|---|---|---|
| **scp_demo_checkpoint.safetensors** | models/checkpoints | your Stable Diffusion 2.1 |
| **scp_demo_controlnet.safetensors** | models/controlnet | a segmentation ControlNet for it |
| **scp_demo.safetensors** | models/scp_statistics | statistics of a data set |
| **scp_demo_labels.png** | input | your segmentation picture |

The templates **cityscapes**, **ade20k** and **coco-stuff** say where the authors' files are and how they get here. \
Files of the names above are made by make demo and make comfy: tiny and **never trained**, they show that the graph \
runs and cannot draw.

{change_first("what you want to see", "that of the segmentation picture, as long as **width** and **height** are 0.")}
{KSAMPLER}"""


PAINT = f"""\
# Paint your own map
No segmentation picture needed: the map is composed class by class, each over the ones before it.

1. **Mask: building**, **Mask: road**, **Mask: car**: right-click on the picture, **Open in MaskEditor**, paint where \
the class is to be, save. Any picture will do; only what you paint counts.
2. Press **Run**. The legend in **SCP Preview Labels** shows the map.
3. More regions: copy a pair of nodes and wire them into the chain, the farthest first. Another class: **class_name**. \
Masks from SAM or drawn shapes go into **mask** as well.

Size: **width** and **height** of the first **SCP Paint Labels** and of **SCP Prior Latent**. The models are those of \
the template **cityscapes**; it says how to get them.

{KSAMPLER}"""

RECOLOR = """\
# From one palette to another
**SCP Recolor** repaints what a segmentation preprocessor made in the colours your ControlNet was trained on. \
**from_palette** auto finds out how the picture is painted and says how sure it is; choose it yourself where it is \
not. **to_palette**: **ade20k-controlnet** is what the ADE20K ControlNet of SCP-Diff wants, **ade20k** what most \
others want. Wire **image** into Apply ControlNet instead of Save Image.
"""

OWN = """\
# Statistics of your own photos
What a class looks like, at each place, learned from your photos and for your model.

1. In ComfyUI's **input** folder: **my_photos/photos** with the photos, **my_photos/labels** with a label map for \
each, of the same name. Press **R**. Twenty pairs are enough to begin with, a few hundred are better.
2. **Load Checkpoint**: the model you will sample with. Statistics belong to its VAE.
3. **palette** in both nodes: how the maps are painted.
4. **width** and **height**: the size of the pictures you will make.
5. **Run**. The file **my_photos** is then in models/scp_statistics; **SCP Load Statistics** has it after **R**.

On the right one map is tried: how many photos stand behind each class, and what the prior looks like. The template \
**minimal** makes pictures with it.
"""
