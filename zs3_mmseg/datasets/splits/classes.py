"""Class names of the benchmarks, in the label order of MMSegmentation 1.x."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(','))


# 'background' precedes these names in the 21-class form of VOC 2012.
VOC20 = _names("""
    aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable,
    dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
""")

# Alphabetical, as in mmseg; the 60-class form puts 'background' first. ZS3Net's own
# label files list the VOC classes first: another order of the same names.
CONTEXT59 = _names("""
    aeroplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle,
    building, bus, cabinet, car, cat, ceiling, chair, cloth, computer, cow, cup,
    curtain, dog, door, fence, floor, flower, food, grass, ground, horse, keyboard,
    light, motorbike, mountain, mouse, person, plate, platform, pottedplant, road,
    rock, sheep, shelves, sidewalk, sign, sky, snow, sofa, table, track, train, tree,
    truck, tvmonitor, wall, water, window, wood
""")

COCO80 = _names("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat,
    traffic light, fire hydrant, stop sign, parking meter, bench, bird, cat, dog,
    horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
    tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
    baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup,
    fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
    hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table,
    toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster,
    sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier,
    toothbrush
""")

# What COCO's panoptic masks have beside the 80 things above, by ascending id.
COCO_GROUNDS53 = _names("""
    banner, blanket, bridge, cardboard, counter, curtain, door-stuff, floor-wood,
    flower, fruit, gravel, house, light, mirror-stuff, net, pillow, platform,
    playingfield, railroad, river, road, roof, sand, sea, shelf, snow, stairs, tent,
    towel, wall-brick, wall-stone, wall-tile, wall-wood, water-other, window-blind,
    window-other, tree-merged, fence-merged, ceiling-merged, sky-other-merged,
    cabinet-merged, table-merged, floor-other-merged, pavement-merged,
    mountain-merged, grass-merged, dirt-merged, paper-merged, food-other-merged,
    building-other-merged, rock-merged, wall-other-merged, rug-merged
""")

# The 80 things above, then 91 stuff classes.
COCO_STUFF171 = COCO80 + _names("""
    banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard,
    carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard,
    curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
    floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit,
    furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat,
    metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow,
    plant-other, plastic, platform, playingfield, railing, railroad, river, road,
    rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow,
    solid-other, stairs, stone, straw, structural-other, table, tent, textile-other,
    towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel,
    wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind,
    window-other, wood
""")

# What stands in the pixel maps of COCO-Stuff as label 0 to 181: the 171 classes above
# and eleven that were planned and never drawn.
NEVER_DRAWN = {
    **{11: 'street sign', 25: 'hat', 28: 'shoe', 29: 'eye glasses', 44: 'plate'},
    **{65: 'mirror', 67: 'window', 68: 'desk', 70: 'door', 82: 'blender'},
    90: 'hair brush',
}


def _with_never_drawn() -> tuple[str, ...]:
    names = list(COCO_STUFF171)
    for label, name in NEVER_DRAWN.items():
        names.insert(label, name)
    return tuple(names)


COCO_STUFF182 = _with_never_drawn()

# ADE20K's scene parsing benchmark; label 0 of its maps is no class.
ADE150 = _names("""
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet,
    sidewalk, person, earth, door, table, mountain, plant, curtain, chair, car, water,
    painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat, fence, desk,
    rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard,
    chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator,
    grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
    river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
    countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar,
    arcade machine, hovel, bus, towel, light, truck, tower, chandelier, awning,
    streetlight, booth, television receiver, airplane, dirt track, apparel, pole, land,
    bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain,
    conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket,
    waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name,
    microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood,
    sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor,
    bulletin board, shower, radiator, glass, clock, flag
""")

# The training labels of Cityscapes.
CITYSCAPES19 = _names("""
    road, sidewalk, building, wall, fence, pole, traffic light, traffic sign,
    vegetation, terrain, sky, person, rider, car, truck, bus, train, motorcycle, bicycle
""")

# CaGNet's reduced Pascal-Context, raw labels 1 to 33; raw label 0 ('unlabel') is
# no class there.
CAGNET_CONTEXT33 = _names("""
    aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable,
    dog, horse, motorbike, person, potted_plant, sheep, sofa, train, tv, sky, grass,
    ground, road, building, tree, water, mountain, wall, floor, track, keyboard,
    ceiling
""")
