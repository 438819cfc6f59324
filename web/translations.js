// Keeps the pack's translations. Front ends from 1.32 to 1.34 load a language when it is chosen and thereby replace what
// they had merged of packs' locales/ (Comfy-Org/ComfyUI_frontend#7214). Later ones merge it again themselves; doing so
// twice changes nothing, and where the page is built otherwise, its nodes are named in English.
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'

function pageMessages() {
  const page = document.getElementById('vue-app')?.__vue_app__
  return page?._context?.provides?.[page.__VUE_I18N_SYMBOL__]?.global
}

async function ownTranslations() {
  const own = {}
  for (const [language, { nodeDefs = {} }] of Object.entries(await (await api.fetchApi('/i18n')).json())) {
    own[language] = { nodeDefs: Object.fromEntries(Object.entries(nodeDefs).filter(([id]) => id.startsWith('SCP'))) }
  }
  return own
}

app.registerExtension({
  name: 'scp-diff.translations',
  async init() {
    const messages = pageMessages()
    if (typeof messages?.mergeLocaleMessage !== 'function' || typeof messages.setLocaleMessage !== 'function') return
    const own = await ownTranslations()
    const replace = messages.setLocaleMessage
    messages.setLocaleMessage = (language, texts) => {
      replace(language, texts)
      if (own[language]) messages.mergeLocaleMessage(language, own[language])
    }
    for (const language of messages.availableLocales) {
      if (own[language]) messages.mergeLocaleMessage(language, own[language])
    }
  }
})
