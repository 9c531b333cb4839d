// SPDX-License-Identifier: Apache-2.0
// client.mjs URL USER TOKEN VM TASK: what an unchanged xen-api, Xen Orchestra's client, sees and does; the machine and the
// task are not its user's. Prints one line of JSON a step; what the client itself warns of goes to stderr. The CA is named
// by NODE_EXTRA_CA_CERTS.
import { createClient } from 'xen-api'

const [url, user, password, foreign, task] = process.argv.slice(2)
const say = (step, value) => console.log(JSON.stringify({ step, value: value === undefined ? null : value }))
const attempt = async (step, call) => {
  try {
    say(step, await call())
  } catch (error) {
    say(step, { failure: [error.code ?? error.message, ...(error.params ?? [])].map(String) })
  }
}
const within = async (what, look) => {
  const until = Date.now() + 20_000
  while (Date.now() < until) {
    const found = look()
    if (found !== undefined && found !== false) return found
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error(`waited in vain for ${what}`)
}

const stranger = createClient({ url, auth: { user, password: 'pct_' + 'x'.repeat(43) }, watchEvents: false })
await attempt('wrong', () => stranger.connect())

// It follows everything that there is, by its own list of the classes.
const xapi = createClient({ url, auth: { user, password } })
await xapi.connect()
await xapi.objectsFetched
const of = type => Object.values(xapi.objects.all).filter(o => o.$type === type)
const names = type => of(type).map(o => o.name_label).sort()
const named = name => of('VM').find(o => o.name_label === name)

say('session', xapi.sessionId)
say('pool', [xapi.pool.name_label, xapi.pool.other_config, xapi.pool.$master?.name_label ?? null])
say('machines', names('VM'))
say('disks', names('VDI'))
say('others', [...new Set(Object.values(xapi.objects.all).map(o => o.$type))].sort())
await attempt('records', async () => (await xapi.getAllRecords('VM')).map(o => o.name_label).sort())
await attempt('networks', () => xapi.getAllRecords('network'))
const web = named('web-1')
say('linked', [web.$VBDs.map(b => b.$VDI.name_label), web.$resident_on.name_label])
await attempt('foreign', () => xapi.getRecord('VM', foreign))
await attempt('foreign power', () => xapi.call('VM.hard_shutdown', foreign))
await attempt('absent', () => xapi.getRecord('VM', 'OpaqueRef:00000000-0000-0000-0000-000000000001'))
await attempt('settings', () => web.set_name_description('a'))
await attempt('injected', () => xapi.call('event.inject', 'VM', web.$ref))
await attempt('foreign export', () => xapi.getResource('/export', { query: { ref: web.$ref, task_id: task }, task: false }))
await attempt('stop', () => xapi.call('VM.clean_shutdown', web.$ref))
say('stopped', await within('the event', () => named('web-1').power_state === 'Halted' && 'Halted'))
await attempt('start', () => xapi.callAsync('VM.start', web.$ref, false, false))
say('started', await within('the event', () => named('web-1').power_state === 'Running' && 'Running'))
await attempt('export', async () => {
  const answer = await xapi.getResource('/export', { query: { ref: web.$ref } })
  const text = await answer.body.text()
  await answer.task
  return text
})
say('trouble', xapi.watchEventsError?.message)
await xapi.disconnect()
say('left', xapi.status)
process.exit(0)
