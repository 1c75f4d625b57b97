# ruff: noqa: E501 (a line is one kind of items)
"""Names of items: four chains of four categories, each with five kinds of a dozen items.

A chain is a row of categories in which an item of one has items of the next: a port has vessels, a
vessel has crates, a crate has cargo. The names are our own. Their number is that of the reference
generator, and so is their average length (2.4 words in the first category of a chain, 1.7 later).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from random import Random

# A line is one kind: a last word, the words before it, and after the bar names that stand alone.
_CHAINS = """
Port
Harbour: Amber, Cedar, Falcon, Granite, Lantern, Osprey, Willow, Old Mill, Grey Heron, Silver Birch, Long Reach, Saint Odo
Wharf: Copper, Dorset, Elm, Gull, Marsh, Orchard, Tanner, Black Swan, Broad Oak, Fair Wind, High Tide, North Gate
Docks: Albion, Castle, Ferry, Juniper, Kingfisher, Merchant, Thistle, Blue Anchor, Green Lane, Iron Bridge, Red Lion, Sand Point
Marina: Azure, Bayview, Coral, Dolphin, Heather, Lighthouse, Pelican, Clear Water, East Cliff, Golden Sail, Quiet Cove, West Pier
Quay: Brewer, Cobble, Drummer, Hazel, Miller, Poplar, Weaver, Bell Tower, Fish Market, Old Customs, Rope Walk, Three Mast
Vessel
Ship: Cable, Hospital, Research, Sail, Supply, Survey, Training, Whaling, Weather | Frigate, Galleon, Corvette
Boat: Canal, House, Mail, Paddle, Patrol, Pilot, Speed, Tow, Police | Dinghy, Gondola, Skiff
Barge: Coal, Gravel, Hay, Jack, Log, River, Sand, Timber | Lighter, Pontoon, Scow, Punt
Yacht: Cruising, Family, Motor, Ocean, Racing, Royal, Steam, Charter, Regatta | Ketch, Sloop, Yawl
Trawler: Cod, Crab, Deep, Herring, Lobster, Mackerel, Shrimp, Squid, Tuna | Dredger, Drifter, Longliner
Crate
Trunk: Brass, Captain, Cedar, Leather, Painted, Steamer, Travel, Wardrobe | Chest, Coffer, Footlocker, Strongbox
Barrel: Cooper, Oak, Plum, Rain, Salt, Tar, Vinegar, Water, Whisky | Cask, Firkin, Keg
Box: Bamboo, Cardboard, Glass, Hat, Ice, Padded, Plywood, Steel, Tin | Carton, Pallet, Tray
Sack: Burlap, Canvas, Cotton, Flour, Grain, Jute, Linen, Paper, Potato | Bale, Bundle, Pouch
Basket: Cane, Egg, Fruit, Laundry, Picnic, Reed, Rush, Wicker | Hamper, Pannier, Punnet, Creel
Cargo
Spice: Cake, Curry, Pickling, Pumpkin | Black Pepper, Bay Leaf, Star Anise, Sweet Paprika, Saffron, Nutmeg, Dried Ginger, White Mustard
Cloth: Broad, Cheese, Sail, Table, Wax | Raw Silk, Harris Tweed, Blue Denim, Corduroy, Velvet, Flannel, Lace Ribbon
Metal: Bell, Gun, Scrap, Sheet, Type | Copper Wire, Iron Nails, Lead Pipe, Zinc Plate, Nickel, Silver, Cobalt
Tea: Breakfast, Green, Jasmine, Mint, Nettle, White, Rooibos | Oolong, Chamomile, Lapsang, Iced Coffee, Cocoa Beans
Stone: Flag, Kerb, Mill, Paving, Pumice, Sand | Marble Slab, Slate Tile, Granite, Basalt, Chalk, Roof Gravel
Festival
Festival: Autumn, Harvest, Lakeside, Midsummer, Moonlight, Solstice, Spring, Early Music, Late Summer, River Valley, Winter Light, Old Town
Fair: Apple, Blossom, Cattle, County, Lantern, Maypole, Wool, Book Lovers, Craft Makers, Country Road, Market Square, Village Green
Carnival: Cherry, Harbour, Island, Masked, Rose, Street, Tulip, Children Day, Mardi Gras, Night Parade, Seven Bridges, Snow Queen
Jamboree: Banjo, Coastal, Forest, Meadow, Prairie, Ranger, Scout, Big Sky, Blue Ridge, Campfire Song, Fiddle Creek, Pine Hollow
Gala: Charity, Emerald, Founders, Jubilee, Mayor, Opera, Regatta, Black Tie, Gold Leaf, New Year, Royal Ballet, Silent Film
Stage
Stage: Acoustic, Comedy, Dance, Floating, Jazz, Main, Open, Puppet, Poetry | Bandstand, Rostrum, Podium
Tent: Big, Circus, Folk, Silk, Striped, Story, White | Marquee, Pavilion, Yurt, Gazebo, Food Awning
Hall: Assembly, Choir, Concert, Dance, Drum, Guild, Mirror, Town | Ballroom, Chapel, Cloister, Theatre
Arena: Boxing, Bull, Ice, Rodeo, Skating, Sports, Tennis, Thunder, Velodrome | Amphitheatre, Coliseum, Stadium
Lawn: Bowling, Castle, College, Croquet, East, Palace, Rectory, South | Courtyard, Terrace, Rotunda, Orangery
Band
Band: Blues, Brass, Big, Ceilidh, Jug, Marching, Police, Rock, Steel | Combo, Rhythm Section, Fanfare
Orchestra: Baroque, Chamber, Festival, Radio, String, Symphony, Theatre, Youth, Wind | Philharmonic, Sinfonia, Camerata
Choir: Boys, Chapel, Gospel, Girls, Opera, School, Village, Women | Madrigal, Schola, Glee, Barbershop
Quartet: Clarinet, Flute, Guitar, Horn, Piano, Saxophone, Viola, Vocal | Trio, Quintet, Sextet, Octet
Troupe: Ballet, Circus, Fire, Juggling, Mime, Puppet, Samba, Tango, Tap | Acrobats, Minstrels, Buskers
Instrument
Drum: Bass, Hand, Kettle, Side, Snare, Steel, Talking, Tenor | Bongo, Cymbal, Tambourine, Tabla
Horn: Alp, Alto, Baritone, English, French, Hunting, Post | Trumpet, Tuba, Slide Trombone, Valve Cornet, Bugle
Flute: Alto, Bamboo, Bass, Nose, Wooden, Pan | Piccolo, Bassoon, Oboe, Tin Whistle, Tenor Recorder, Bass Clarinet
Guitar: Acoustic, Bass, Electric, Lap, Slide, Twelve-String | Banjo, Lute, Ukulele, Mandolin, Celtic Harp, Mountain Dulcimer
Organ: Barrel, Church, Mouth, Pipe, Reed, Theatre | Grand Piano, Toy Piano, Celesta, Spinet, Clavichord, Harpsichord
Estate
Manor: Ashby, Birch, Colby, Fenwick, Hartley, Linden, Rowan, Clay Hill, Dove Cote, Kings Acre, Stone Cross, Two Rivers
Lodge: Alder, Bracken, Deer, Hunters, Larch, Moor, Spruce, Cold Spring, Eagle Rock, Fox Hollow, Loch Side, Pine Ridge
Villa: Aurora, Bella, Florentine, Lemon, Olive, Portia, Siena, Bay Laurel, Casa Verde, Monte Alto, Roman Road, Sun Dial
Farm: Barley, Clover, Dairy, Honey, Meadow, Pear, Sheep, Hay Barn, Hill Top, Long Acre, Nut Tree, Wind Pump
Chateau: Belmont, Chevalier, Delacroix, Lavande, Marigny, Rochefort, Valois, Beau Soleil, Grand Duc, Haute Rive, Mont Clair, Vieux Moulin
Garden
Garden: Alpine, Bog, Herb, Kitchen, Knot, Rock, Roof, Rose, Walled | Rosarium, Fernery, Arboretum
Orchard: Almond, Cherry, Cider, Fig, Lime, Peach, Plum, Quince | Vineyard, Olive Grove, Nuttery, Hop Field
Glasshouse: Cactus, Fern, Grape, Lily, Orchid, Palm, Tomato, Tropical | Hothouse, Conservatory, Cold Frame, Orangery
Park: Deer, Duck, Lake, Maple, Pocket, Skate, Sculpture, Water, Yew | Meadow, Lawn, Arbour
Allotment: Community, Corner, Hillside, North, Railway, Riverside, School, Sunny, Vicarage | Smallholding, Paddock, Croft
Bed
Border: Cottage, Cutting, Gravel, Hedge, Herbaceous, Shade, Sunny, Summer | Verge, Parterre, Edging, Rockery
Planter: Barrel, Clay, Concrete, Copper, Lead, Patio, Stone, Trough, Zinc | Urn, Jardiniere, Terrarium
Plot: Bean, Corn, Flower, Melon, Pepper, Root, Salad, Trial | Patch, Ridge, Furrow, Mound
Box: Balcony, Cedar, Nursery, Porch, Seed, Sill, Strawberry, Tile, Window | Cradle, Tray, Tub
Pot: Bulb, Ceramic, Glazed, Hanging, Peat, Porcelain, Strawberry, Terracotta, Tiny | Basket, Bucket, Cachepot
Plant
Rose: China, Climbing, Dog, Guelder, Moss, Musk, Rock, Tea | Begonia, Camellia, Hydrangea, Peony
Lily: Arum, Calla, Day, Ginger, Tiger, Torch, Water | Agapanthus, Crocus, Hyacinth, Wild Garlic, Dutch Iris
Fern: Nesting, Holly, Lady, Maidenhair, Ostrich, Royal, Sword, Tree | Bracken, Hosta, Moss, Horsetail
Bean: Broad, Butter, French, Kidney, Lima, Runner, Soy, Velvet | Lentil, Chickpea, Sweet Pea, Vetch
Grass: Blue, Feather, Fescue, Fountain, Lemon, Pampas, Quaking, Rye | Bamboo, Papyrus, Sedge, Cattail
City
City: Canal, Capital, Garden, Hanse, Island, Mirror, Steel, Free Imperial, High Plateau, Lower Delta, Seven Hills, Twin River
Town: Abbey, Border, Clock, Market, Miners, Spa, Wool, Half Timber, Hot Spring, Old Frontier, Salt Mine, Walled Hill
Borough: Bridge, Cathedral, Eastern, Garrison, Mill, Royal, Southern, Inner Ring, Lower Heath, Outer West, Stone Arch, Upper Vale
Village: Cliff, Ferry, Glass, Lace, Olympic, Potters, Windmill, Bell Founders, Cave House, Paper Makers, Salmon Run, White Chalk
Quarter: Artists, Diplomatic, Garment, Harbour, Jewellers, Latin, Printers, Book Sellers, Clock Makers, Old University, Silk Road, Tin Smiths
Museum
Museum: Aviation, Clock, Design, Folk, Maritime, Puppet, Railway, Science, Toy | Archive, Planetarium, Athenaeum
House: Bishop, Composer, Merchant, Opera, Poet, Tower, Treasure, Weaver | Citadel, Palace, Chateau, Priory
Library: Court, Law, Map, Medical, Music, Parish, Royal, Seed, State | Scriptorium, Bibliotheca, Reading Room
Collection: Beetle, Coin, Gem, Mask, Porcelain, Shell, Stamp, Tapestry, Textile | Treasury, Cabinet, Menagerie
Institute: Botany, Chess, Fossil, Geology, Ocean, Optics, Polar, Space | Academy, Observatory, Conservatoire, Gallery
Room
Gallery: Bronze, Ceiling, East, Ivory, Long, Portrait, Sculpture, Upper, West | Atrium, Mezzanine, Cloister
Room: Armour, Blue, Clock, Ebony, Globe, Mirror, Red, Tapestry, Yellow | Parlour, Salon, Study
Hall: Dinosaur, Echo, Entrance, Knights, Marble, Mosaic, Statue, Whale | Vestibule, Nave, Rotunda, Foyer
Vault: Amber, Coin, Crown, Crystal, Deed, Film, Gold, Print | Crypt, Cellar, Undercroft, Strongroom
Wing: Asian, Children, Founder, Garden, Glass, Medieval, Modern, Northern, Roman | Annexe, Loft, Attic
Exhibit
Painting: Altar, Cave, Fresco, Landscape, Oil, Panel, Scroll, Silk, Wall | Triptych, Miniature, Watercolour
Vase: Ming, Celadon, Delft, Floor, Funeral, Glass, Lacquer, Palace, Wedding | Amphora, Chalice, Goblet
Mask: Bird, Carnival, Dance, Death, Fox, Funeral, Gas, Noh, Theatre | Helmet, Visor, Headdress
Statue: Bronze, Garden, Horse, Ivory, Lion, Marble, Plaster, Temple | Bust, Obelisk, Sphinx, Torso
Clock: Astronomical, Carriage, Cuckoo, Lantern, Mantel, Skeleton, Tower, Water | Sextant, Astrolabe, Sundial, Hourglass
"""


@dataclass(frozen=True)
class Category:
    """A category of items, such as ``Crate``, and its kinds."""

    name: str
    kinds: tuple[tuple[str, ...], ...]


def _kind(line: str) -> tuple[str, ...]:
    head, _, rest = line.partition(": ")
    before, _, alone = rest.partition(" | ")
    return (*(f"{word} {head}" for word in before.split(", ")), *filter(None, alone.split(", ")))


def _chains() -> tuple[tuple[Category, ...], ...]:
    lines = iter(_CHAINS.split("\n")[1:-1])
    categories = [
        Category(name, tuple(_kind(line) for line in itertools.islice(lines, 5))) for name in lines
    ]
    return tuple(tuple(categories[start : start + 4]) for start in range(0, 16, 4))


CHAINS = _chains()
"""Four chains of four categories; a problem of depth d uses d neighbouring ones."""

CATEGORIES: dict[str, frozenset[str]] = {
    category.name: frozenset(itertools.chain(*category.kinds))
    for chain in CHAINS
    for category in chain
}
"""The items of each category, which a problem does not state; `verify` may be given them."""


@dataclass(frozen=True)
class Names:
    """Names of one problem.

    Attributes:
      categories: one for each layer.
      items: for each layer, one for each item.
    """

    categories: tuple[str, ...]
    items: tuple[tuple[str, ...], ...]


def draw_names(
    widths: tuple[int, ...], rng: Random, chains: tuple[tuple[Category, ...], ...] = CHAINS
) -> Names:
    """Draw neighbouring categories of a chain, a kind for each layer, and distinct items of it.

    Args:
      widths: number of items of each layer.
      rng: source of randomness.
      chains: what to choose from.
    """
    chain = rng.choice(chains)
    start = rng.randrange(len(chain) - len(widths) + 1)
    layers = chain[start : start + len(widths)]
    items = (
        tuple(rng.sample(rng.choice(layer.kinds), width))
        for layer, width in zip(layers, widths, strict=True)
    )
    return Names(tuple(layer.name for layer in layers), tuple(items))
