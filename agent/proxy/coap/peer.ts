/** Where a datagram came from. */
export interface Peer {
  readonly address: string
  readonly port: number
}

export const peerKey = (peer: Peer): string => `${peer.address} ${peer.port}`
