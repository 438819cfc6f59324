// Menus of class names that follow the palette: each offers the classes of the palette chosen on its node, or of the
// label map wired into it, and first those the map had when it was last made. Without this file they offer the classes
// of every palette; the nodes themselves take any name that means something.
import { app } from '../../scripts/app.js'

const LABELS = 'SCP_LABELS'
// Lists of Vue's own kind where the page shares its Vue, so that "Nodes 2.0" notices when they change.
const { reactive = (list) => list } = await import('vue').catch(() => ({}))

const menusOfType = new Map() // node type -> { widget: { palettes: { palette: table }, tables: { table: names } } }
const lists = new WeakMap() // widget -> the list it shows
const lastMade = new WeakMap() // node -> { palette, present }: the label map it made last

const typeOf = (node) => node.comfyClass ?? node.type
const plain = (name) => String(name).normalize('NFKC').toLowerCase().replace(/[-_\s]+/g, ' ').trim()
const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)
const labelsInto = (node) =>
  node.inputs?.find((input) => input.link != null && (input.type === LABELS || node.type === 'Reroute'))

function* nodesWithin(graph) {
  for (const node of graph?.nodes ?? []) {
    yield node
    if (node.isSubgraphNode?.()) yield* nodesWithin(node.subgraph)
  }
}

const rootGraph = () => app.rootGraph ?? app.graph
const everyNode = () => nodesWithin(rootGraph())

/** The node the host names in a run: "5", or "3:5" for node 5 of the subgraph in node 3. */
function nodeRun(path) {
  const ids = String(path).split(':')
  const last = ids.pop()
  const within = ids.reduce((graph, id) => graph?.getNodeById(id)?.subgraph, rootGraph())
  return within?.getNodeById(last)
}

/** The node a link comes from, out of and into subgraphs; undefined where it comes from nowhere. */
function originOf(graph, linkId) {
  const link = graph?.getLink?.(linkId)
  if (!link) return undefined
  const node = graph.getNodeById(link.origin_id)
  if (node?.isSubgraphNode?.()) return originOf(node.subgraph, node.subgraph.outputs[link.origin_slot]?.linkIds?.[0])
  if (node) return node
  const holder = [...everyNode()].find((one) => one.subgraph === graph)
  return holder && originOf(holder.graph, holder.inputs[link.origin_slot]?.link)
}

/** What is known of the label map a node works on: { palette, present }, either of them undefined if not known. */
function labelsAt(node, seen = new Set()) {
  if (!node || seen.has(node)) return {}
  seen.add(node)
  const wired = labelsInto(node)
  if (!wired) return { palette: widgetOf(node, 'palette')?.value }
  const origin = originOf(node.graph, wired.link)
  const before = labelsAt(origin, seen)
  const made = origin && lastMade.get(origin)
  if (!made) return before
  // "auto" is a palette that only a run can name.
  return { palette: before.palette === 'auto' ? made.palette : before.palette ?? made.palette, present: made.present }
}

function namesFor(node, { palettes, tables }) {
  const { palette, present = [] } = labelsAt(node)
  const names = tables[palettes[palette]] ?? Object.values(tables).flat()
  return [...new Set([...present.filter((name) => names.includes(name)), ...names])]
}

function* menusOf(node) {
  for (const [name, menu] of Object.entries(menusOfType.get(typeOf(node)) ?? {})) {
    const widget = widgetOf(node, name)
    if (widget && lists.has(widget)) yield { widget, menu, list: lists.get(widget) }
  }
}

function refresh(node) {
  for (const { widget, menu, list } of menusOf(node)) {
    const names = namesFor(node, menu)
    if (names.length !== list.length || names.some((name, place) => name !== list[place])) {
      list.splice(0, list.length, ...names)
    }
    if (widget.options.values !== list) widget.options.values = list
  }
}

function refreshAll() {
  for (const node of everyNode()) refresh(node)
}

/** Keep the class when the palette chosen on the node changes, as far as the new palette has one of that name. */
function follow(node) {
  if (labelsInto(node)) return
  refresh(node)
  for (const { widget, list } of menusOf(node)) {
    if (list.includes(widget.value)) continue
    const old = plain(widget.value)
    const equal = list.find((name) => plain(name) === old)
    widget.value = equal ?? list.find((name) => plain(name).startsWith(old)) ?? list[0]
    widget.callback?.(widget.value, app.canvas, node)
  }
}

app.registerExtension({
  name: 'scp-diff.classMenus',

  beforeRegisterNodeDef(_, nodeData) {
    const inputs = Object.entries({ ...nodeData.input?.required, ...nodeData.input?.optional })
    const menus = inputs.filter(([, spec]) => spec[1]?.scp_classes).map(([name, spec]) => [name, spec[1].scp_classes])
    if (menus.length) menusOfType.set(nodeData.name, Object.fromEntries(menus))
  },

  nodeCreated(node) {
    for (const name of Object.keys(menusOfType.get(typeOf(node)) ?? {})) {
      const widget = widgetOf(node, name)
      if (widget) lists.set(widget, (widget.options.values = reactive([...widget.options.values])))
    }
    const palette = widgetOf(node, 'palette')
    if (!palette || !menusOfType.has(typeOf(node))) return
    const own = palette.callback
    palette.callback = function () {
      const result = own?.apply(this, arguments)
      follow(node)
      return result
    }
  },

  refreshComboInNodes: refreshAll,

  setup() {
    // Whatever opens a menu, in either renderer, begins with one of these.
    for (const event of ['pointerdown', 'keydown']) document.addEventListener(event, refreshAll, true)
    app.api.addEventListener('scp-diff.labels', ({ detail: { node, palette, present } }) => {
      const made = nodeRun(node)
      if (made) lastMade.set(made, { palette, present })
    })
  }
})
