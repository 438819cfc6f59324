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


DEMO = """\
Files named scp_demo come from make comfy: a small model trained on generated streets. It draws 256 x 128 only, and \
has learnt no words."""

ONE_SIDED = """\
**Negative Prompt** goes past Apply ControlNet to KSampler, so that **cfg** strengthens the label map. The authors' \
ControlNets were used on both sides: for those, wire **negative** of Apply ControlNet instead.
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
{DEMO}

{change_first("what you want to see", "that of the segmentation picture, as long as **width** and **height** are 0.")}
{KSAMPLER}
{ONE_SIDED}"""


PAINT = f"""\
# Paint your own map
No segmentation picture needed: the map is composed class by class, each over the ones before it.

1. **Mask: building**, **Mask: sidewalk**, **Mask: road**, **Mask: car**: right-click on the picture, **Open in \
MaskEditor**, paint where the class is to be (the right button erases), **Save**. Any picture will do, of \
any size; only what you paint counts.
2. Press **Run**. The legend in **SCP Preview Labels** shows the map, **Save Image** at the right end the picture; key \
**.** brings all into view.
3. Another class: **class_name**. More regions: copy a pair of nodes and wire them into the chain, the farthest first. \
Masks from SAM or drawn shapes go into **mask** as well.

**Size**: **width** and **height** of the first **SCP Paint Labels**; masks are fitted to it.

## The files
{DEMO} For photos, put the three files of the template **cityscapes** into the loaders, and its size here. The masks \
come from make comfy too: elsewhere choose a picture of yours in every **Mask** first.

{KSAMPLER}
{ONE_SIDED}"""

REGIONS = f"""\
# Words and strengths for single classes
1. **prompts** of SCP Region Prompts: one **class: words** a line. The words count on exactly the cells the prior and \
the ControlNet give that class; all else keeps **Prompt**.
2. **class_strength** of SCP Prior Latent: one **class: number** a line. Below 1 the prior says less there, and the \
model has more freedom: here the cars need not have the usual colours.
3. Class names are those of the map's palette; the legend in **SCP Labels From Image** has them.

Every line of words makes sampling longer.

## The files
{DEMO} So here **prompts** changes next to nothing, and **class_strength** does; with a model that reads, both do. For \
photos, put the three files of the template **cityscapes** into the loaders.

{KSAMPLER}
{ONE_SIDED}"""

INPAINT = f"""\
# Replace a class of a photo
The trees become houses. All else stays the photo.

1. **Photo**, and **Its Label Map** of the same size.
2. **What Is Replaced**: the class to take away. Or wire a mask of the mask editor in its place.
3. **What Comes There**: the class to put there. The ControlNet sees the new map, and the prior fills the mask with it.
4. **grow_mask_by**: how many pixels the mask grows, so that no edge of the old is left.
5. **timestep** of SCP Denoise Start: 999 forgets the prior, lower stays closer to it.

## The files
{DEMO} For photos, put the three files of the template **cityscapes** into the loaders.

{KSAMPLER}
{ONE_SIDED}"""

RECOLOR = """\
# From one palette to another
**SCP Recolor** repaints what a segmentation preprocessor made in the colours your ControlNet was trained on. Here: \
from what the OneFormer preprocessor paints since June 2025 to what most ADE20K ControlNets know.

**from_palette** auto finds out how the picture is painted and says how sure it is; choose it yourself where it is \
not. **to_palette**: **ade20k** for most ControlNets, ade20k-controlnet for the authors'. Then wire **image** into \
Apply ControlNet instead of Save Image.
"""

OWN = f"""\
# Statistics of your own photos
What a class looks like, at each place, learned from your photos and for your model.

1. Two folders in ComfyUI's **input** folder: photos, and label maps of the same names. Press **R**, then choose \
them in **images_folder** and **labels_folder**. Twenty pairs are enough to begin with, a few hundred are better.
2. **Load Checkpoint**: the model you will sample with. Statistics belong to its VAE.
3. **palette** in both nodes: how the maps are painted.
4. **width** and **height**: the size of the pictures you will make.
5. **Run**. The file **my_photos** is then in models/scp_statistics; **SCP Load Statistics** has it after **R**.

On the right one map is tried: how many photos stand behind each class, and what the prior looks like. The template \
**minimal** makes pictures with it.

{DEMO}
"""
