/**
 * Adds the clusters that palette-sync publishes to the Kubernetes plugin of Backstage.
 *
 * @packageDocumentation
 */
export { kubernetesModulePaletteSync as default } from './module';
